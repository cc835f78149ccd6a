package registry

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestPickChallenge(t *testing.T) {
	const bearer, basic = `Bearer realm="https://t/",service="s",scope="repository:a:pull,push"`, `Basic realm="x, Bearer realm=y"`
	normal := strings.ReplaceAll(bearer, `",s`, `", s`)
	tests := []struct {
		name string
		in   []string
		want string
	}{
		{"bearer", []string{bearer}, normal},
		{"basic", []string{basic}, basic},
		{"two headers", []string{basic, bearer}, normal},
		{"two headers, other way", []string{bearer, basic}, normal},
		{"one header", []string{basic + ", " + bearer}, normal},
		{"one header, other way", []string{bearer + "," + basic}, normal},
		{"behind what nobody speaks", []string{"Negotiate", "Negotiate YWJj==, NTLM",
			`Digest realm="d", nonce="n, Basic", ` + basic}, basic},
		{"the first of two", []string{`Bearer realm="https://1/"`, `Bearer realm="https://2/"`},
			`Bearer realm="https://1/"`},
		{"lower case", []string{`bearer realm="https://t/"`}, `bearer realm="https://t/"`},
		{"spaces", []string{`Bearer realm = "https://t/" , service=s`},
			`Bearer realm = "https://t/", service=s`},
		{"quotes", []string{`Basic realm="a\", Bearer realm=b"`}, `Basic realm="a\", Bearer realm=b"`},
		{"none", []string{"Negotiate"}, "Negotiate"},
		{"nothing", nil, ""},
	}
	for _, tt := range tests {
		resp := &http.Response{Header: http.Header{"Www-Authenticate": tt.in},
			Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "h"}}}
		if err := pickChallenge(resp); err != nil || resp.Header.Get("WWW-Authenticate") != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.name, resp.Header.Values("WWW-Authenticate"), err, tt.want)
		}
	}
}

func TestRealmRefused(t *testing.T) {
	for in, want := range map[string]string{
		`Bearer`:                             "no token server",
		`Bearer service="s"`:                 "no token server",
		`Bearer realm=""`:                    "no token server",
		`Bearer realm="ftp://t/?SECRET"`:     "no token server",
		`Bearer realm="http://[::1/?SECRET"`: "no token server",
		`Bearer realm="http://t/?SECRET"`:    "plain HTTP",
	} {
		resp := &http.Response{Header: http.Header{"Www-Authenticate": {in}},
			Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "h"}}}
		err := pickChallenge(resp)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Basic realm="x", Bearer realm="https://t/",scope="a,b"`)
	f.Add(`Negotiate YWJj==, NTLM, , =, "`)
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseChallenges([]string{s, s})
		if (2*len(s) > maxChallenge) && err == nil {
			t.Fatalf("%d bytes pass", 2*len(s))
		}
		for _, c := range list {
			if c.scheme == "" || !strings.HasPrefix(c.text(), c.scheme) || len(c.text()) > 4*len(s)+2 {
				t.Fatalf("%q: got %+v", s, c)
			}
			c.param("realm")
		}
	})
}
