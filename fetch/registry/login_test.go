package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry/cred"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// tokenAuth lets a fake registry want a bearer token from a server of its own.
type tokenAuth struct {
	*httptest.Server
	issued atomic.Int64
	valid  atomic.Int64 // number of the token that is valid
	basic  string       // Authorization that the token server wants; "": none
	scope  string       // of the challenge
	answer http.HandlerFunc
}

func withTokens(t *testing.T, f *registrytest.Server, basic string) *tokenAuth {
	a := &tokenAuth{basic: basic, scope: "repository:a:pull"}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.answer != nil {
			a.answer(w, r)
			return
		}
		if r.Header.Get("Authorization") != a.basic {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if got := r.URL.Query().Get("scope"); got != "repository:a:pull" {
			t.Errorf("scope: got %q", got)
		}
		n := a.issued.Add(1)
		a.valid.Store(n)
		fmt.Fprintf(w, `{"token":"token-%d"}`, n)
	}))
	t.Cleanup(a.Close)
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == fmt.Sprintf("Bearer token-%d", a.valid.Load()) &&
			a.valid.Load() > 0 {
			return false
		}
		w.Header().Set("WWW-Authenticate",
			fmt.Sprintf(`Bearer realm="%s/token",service="s",scope="%s"`, a.URL, a.scope))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	return a
}

func TestToken(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	for _, tt := range []struct {
		name  string
		env   func(string) string
		basic string
	}{
		{"anonymous", registrytest.NoEnv, ""},
		{"user", registrytest.Env("OCI_USERNAME", "u", "OCI_PASSWORD", "p:w"), "Basic dTpwOnc="},
	} {
		f := registrytest.NewServer(t)
		f.Serve(t, p)
		a := withTokens(t, f, tt.basic)
		o := quickOptions()
		o.Login.Getenv = tt.env
		im := mustOpenImage(t, f.Ref(t), o)
		if a.issued.Load() != 1 || f.Count("*") != 4 {
			t.Errorf("%s: %d tokens, %d requests, want 1 and 4", tt.name, a.issued.Load(), f.Count("*"))
		}
		a.valid.Store(99) // the token expires
		if err := im.Blob(context.Background(), p.Logical(), 7,
			&registrytest.Buffer{}); err != nil || a.issued.Load() != 2 {
			t.Errorf("%s: after expiry: %v, %d tokens", tt.name, err, a.issued.Load())
		}
	}
}

func TestTokenRefused(t *testing.T) {
	const secret = "s3cr3t"
	say := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		}
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   error
		text   string
	}{
		{"401", say(401, `{"errors":[{"code":"UNAUTHORIZED","message":"bad login"}]}`), ErrDenied,
			"bad login"},
		{"403", say(403, ``), ErrDenied, "user u of OCI_USERNAME"},
		{"500", say(500, ``), ErrRegistry, "after 5 tries"},
		{"404", say(404, `nobody home`), ErrRegistry, "404 Not Found"},
		{"redirect to nowhere", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://[::1/?SECRET")
			w.WriteHeader(302)
		}, ErrRegistry, "no address"},
		{"details", say(401, `{"details":"incorrect username or password"}`), ErrDenied,
			"incorrect username"},
		{"OAuth's words", say(400, `{"error":"invalid_grant","error_description":"gone"}`),
			ErrRegistry, "invalid_grant: gone"},
		{"repeats the password",
			say(401, `{"errors":[{"code":"X","message":"bad password s3cr3t!"}]}`), ErrDenied,
			"bad password ***!"},
		{"no token", say(200, `{}`), ErrDenied, "holds no token"},
		{"empty", say(200, ``), ErrDenied, "not the JSON of a token"},
		{"null", say(200, `null`), ErrDenied, "holds no token"},
		{"number", say(200, `{"token":5}`), ErrDenied, "not the JSON of a token"},
		{"newline in the token", say(200, `{"token":"a\nb"}`), ErrDenied, "characters that no token has"},
		{"not JSON", say(200, `<html>`), ErrDenied, "not the JSON of a token"},
		{"201", say(201, `{"token":"t"}`), ErrRegistry, "201 Created"},
		{"10 MB", say(200, `{"x":"`+strings.Repeat("a", 10<<20)+`"}`), ErrDenied, "longer than 131072 bytes"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, ErrDenied, "longer than 131072 bytes"},
		{"redirect to a loop", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusTemporaryRedirect)
		}, ErrRegistry, "redirects"},
	}
	for _, tt := range tests {
		f := registrytest.NewServer(t)
		f.Serve(t)
		a := withTokens(t, f, "x")
		var asked atomic.Int64
		a.answer = func(w http.ResponseWriter, r *http.Request) { asked.Add(1); tt.answer(w, r) }
		o := quickOptions()
		o.Login.Getenv = registrytest.Env("OCI_USERNAME", "u", "OCI_PASSWORD", secret)
		_, err := openImage(context.Background(), f.Ref(t), o)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "scope=")) {
			t.Errorf("%s: a secret or a query is in %v", tt.name, err)
		}
		want := int64(1)
		switch tt.text {
		case "after 5 tries":
			want = 5
		case "redirects":
			want = maxHops + 1
		}
		if n := asked.Load(); n != want {
			t.Errorf("%s: %d requests to the token server, want %d", tt.name, n, want)
		}
	}
}

func TestBearerAndBasic(t *testing.T) {
	for _, tt := range []struct {
		name      string
		env       func(string) string
		challenge string
		want      string
		requests  int // to open
	}{
		{"bearer, at once", registrytest.Env("OCI_BEARER", "tok", "OCI_USERNAME", "u",
			"OCI_PASSWORD", "p"), "", "Bearer tok", 3},
		{"basic", registrytest.Env("OCI_USERNAME", "u", "OCI_PASSWORD", "p"), `Basic realm="x"`,
			"Basic dTpw", 4},
	} {
		f := registrytest.NewServer(t)
		f.Serve(t)
		f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == tt.want {
				return false
			}
			w.Header().Set("WWW-Authenticate", tt.challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		o := quickOptions()
		o.Login.Getenv = tt.env
		mustOpenImage(t, f.Ref(t), o)
		if n := f.Count("*"); n != tt.requests {
			t.Errorf("%s: %d requests, want %d", tt.name, n, tt.requests)
		}
		for _, bad := range []struct {
			env  func(string) string
			text string
		}{{registrytest.NoEnv, "no credentials"},
			{registrytest.Env("OCI_USERNAME", "u"), "OCI_PASSWORD is not"},
			{registrytest.Env("OCI_BEARER", "a b"), "OCI_BEARER"},
			{registrytest.Env("OCI_BEARER", "wrong-token"),
				"token in OCI_BEARER; it may be wrong, have expired"}, {registrytest.Env("OCI_USERNAME", "u", "OCI_PASSWORD", "wrong-pass"), "user u"}} {
			o.Login.Getenv = bad.env
			_, err := openImage(context.Background(), f.Ref(t), o)
			if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), bad.text) ||
				strings.Contains(err.Error(), "wrong-") {
				t.Errorf("%s: got %v, want ErrDenied with %q", tt.name, err, bad.text)
			}
		}
	}
}

// TestSecretsStayIn puts known strings where secrets are, breaks everything, and looks for them in
// errors and logs.
func TestSecretsStayIn(t *testing.T) {
	secrets := []string{"SECRETPASS", "SECRETTOKEN", "SECRETQUERY"}
	p := registrytest.Layer{Content: []byte("content")}
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }))
	defer store.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	targets := []string{
		store.URL + "/blob?sig=SECRETQUERY", gone.URL + "/blob?sig=SECRETQUERY",
		"http://u:SECRETPASS@127.0.0.2:1/x?SECRETQUERY",
		"ftp://x/?SECRETQUERY", "http://[::1/SECRETQUERY", "http://registry.invalid./x?SECRETQUERY",
	}
	for _, to := range targets {
		for _, login := range []func(string) string{registrytest.Env("OCI_BEARER", "SECRETTOKEN"), registrytest.Env("OCI_USERNAME", "u", "OCI_PASSWORD", "SECRETPASS")} {
			var log bytes.Buffer
			o := quickOptions()
			o.Login.Getenv = login
			o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 8}))
			f := registrytest.NewServer(t)
			f.Serve(t, p)
			im := mustOpenImage(t, f.Ref(t), o)
			f.OnBlob(p, func(_ int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Location", to)
				w.WriteHeader(307)
				return true
			})
			err := im.Blob(context.Background(), p.Logical(), 7, &registrytest.Buffer{})
			if err == nil {
				t.Errorf("%s: no error", to)
				continue
			}
			for _, s := range secrets {
				if text := err.Error() + fmt.Sprintf("%+v", err) + log.String(); strings.Contains(text, s) {
					t.Errorf("%s: %s is in %s", to, s, text)
				}
			}
		}
	}
}

func TestPlainText(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{errors.New("bad thing"), "bad thing"},
		{errors.New(`parse "http://u:p@h/?q": no`), "(*errors.errorString)"},
		{errors.New("invalid proxy address u:p"), "(*errors.errorString)"},
		{errors.New("user@host"), "(*errors.errorString)"},
		{&net.DNSError{Name: "h", IsNotFound: true}, "no such host h"},
		{context.DeadlineExceeded, "timed out"},
		{fmt.Errorf("x: %w", errStalled), "no byte"},
		{nil, "no reason"},
	}
	for _, tt := range tests {
		if got := plainText(tt.err); !strings.Contains(got, tt.want) {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
	}
	if got := clip("a\x1b[31m\nb\xff", 100); strings.ContainsAny(got, "\x1b\n") || !utf8.ValidString(got) {
		t.Errorf("clip leaves %q", got)
	}
	for _, text := range []string{"é", "\x1bé日", "x"} {
		if got := clip("\t"+strings.Repeat(text, 1000), 300); len(got) > 300 || !utf8.ValidString(got) {
			t.Errorf("clip leaves %d bytes: %q", len(got), got)
		}
	}
}

// TestIdentityToken: an identity token becomes a token by POST, and goes to no other host.
func TestIdentityToken(t *testing.T) {
	const secret = "S3CRETidentity"
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, _ := io.ReadAll(r.Body); strings.Contains(string(b)+r.URL.String(), secret) {
			t.Errorf("another host got %s %s %s", r.Method, r.URL, b)
		}
	}))
	defer other.Close()
	for _, tt := range []struct {
		name     string
		redirect int // 0: none
		text     string
	}{{"direct", 0, ""}, {"307", 307, "refused to send a login to another host"}, {"308", 308,
		"refused to send a login to another host"}, {"302", 302, "not the JSON of a token"}} {
		f := registrytest.NewServer(t)
		f.Serve(t)
		a := withTokens(t, f, "")
		a.answer = func(w http.ResponseWriter, r *http.Request) {
			form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {secret},
				"service": {"s"}, "client_id": {"pfmount"}, "scope": {"repository:a:pull"}}
			if err := r.ParseForm(); err != nil || r.Method != http.MethodPost ||
				!maps.EqualFunc(r.PostForm, form, slices.Equal) {
				t.Errorf("%s: asked with %s %v, want POST %v", tt.name, r.Method, r.PostForm, form)
			}
			if tt.redirect != 0 {
				http.Redirect(w, r, other.URL, tt.redirect)
				return
			}
			a.valid.Store(a.issued.Add(1))
			fmt.Fprintf(w, `{"access_token":"token-%d"}`, a.issued.Load())
		}
		o := quickOptions()
		o.Login.Getenv = registrytest.Env("REGISTRY_AUTH_FILE",
			registrytest.WriteFile(t, t.TempDir()+"/auth.json",
				`{"auths":{"`+f.Host()+`":{"identitytoken":"`+secret+`"}}}`, 0o600))
		_, err := openImage(context.Background(), f.Ref(t), o)
		if (tt.text == "") != (err == nil) ||
			err != nil && (!strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), secret)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.text)
		}
	}
}

// TestExistsWithoutTokenServer: a token server that is not there says nothing about the image.
func TestExistsWithoutTokenServer(t *testing.T) {
	f := registrytest.NewServer(t)
	f.Serve(t)
	withTokens(t, f, "").answer = http.NotFound
	if there, err := existsAt(context.Background(), f.Ref(t), quickOptions()); there ||
		!errors.Is(err, ErrRegistry) || errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("got %v, %v, want ErrRegistry", there, err)
	}
}

// TestLoginOrder: what is given goes before the files, and to the image's own registry only.
func TestLoginOrder(t *testing.T) {
	dir := t.TempDir()
	file := registrytest.WriteFile(t, dir+"/auth.json",
		registrytest.LoginFile("h", "file:1", "mirror", "mirror:2"), 0o600)
	vars := []string{"OCI_BEARER", "token", "OCI_USERNAME", "env", "OCI_PASSWORD", "3"}
	o := Options{Login: cred.Options{Username: "option", Password: "4"}}
	for _, tt := range []struct {
		name       string
		env        []string
		o          Options
		host       string
		own        bool
		user, sent string
	}{
		{"bearer", vars, o, "h", true, "", "Bearer token"},
		{"variables", vars[2:], o, "h", true, "env", ""},
		{"option", vars[2:4], o, "h", true, "option", ""},
		{"half a login", vars[2:4], Options{}, "h", true, "file", ""},
		{"file", nil, Options{}, "h", true, "file", ""},
		{"mirror", vars, o, "mirror", false, "mirror", ""},
		{"mirror without a login", vars, o, "mirror2", false, "", ""},
		{"mirror of the same name on another port", vars, o, "h:5000", false, "", ""},
	} {
		tt.o.Login.Getenv = registrytest.Env(append([]string{"REGISTRY_AUTH_FILE", file,
			"XDG_RUNTIME_DIR", dir}, tt.env...)...)
		l, err := newLogin(tt.host, "a", tt.own, tt.o,
			func(text string) { t.Errorf("%s: warned of %s", tt.name, text) })
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		req := httptest.NewRequest(http.MethodGet, "https://"+tt.host+"/v2/", nil)
		l.sign(req)
		got, err := l.credential(context.Background(), tt.host)
		if err != nil || got.Username != tt.user || req.Header.Get("Authorization") != tt.sent {
			t.Errorf("%s: got %+v, %q, %v, want %s, %q", tt.name, got,
				req.Header.Get("Authorization"), err, tt.user, tt.sent)
		}
		for _, stranger := range []string{"other", "h.evil.example", "evil.h", "h:1"} {
			req := httptest.NewRequest(http.MethodGet, "https://"+stranger+"/v2/", nil)
			l.sign(req)
			if got, err := l.credential(context.Background(), stranger); err != nil ||
				got.Username != "" || req.Header.Get("Authorization") != "" {
				t.Errorf("%s: %s gets %+v, %q, %v", tt.name, stranger, got,
					req.Header.Get("Authorization"), err)
			}
		}
	}
}
