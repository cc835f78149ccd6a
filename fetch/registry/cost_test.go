package registry

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf returns the processor time, of this thread, of doing f n times.
func cpuOf(t *testing.T, n int, f func()) time.Duration {
	t.Helper()
	used := func() time.Duration {
		var at unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &at); err != nil {
			t.Fatal(err)
		}
		return time.Duration(at.Nano())
	}
	begin := used()
	for range n {
		f()
	}
	return used() - begin
}

// linear fails the test when 16 times the input costs more than 24 times the processor time in
// the best of 5 rounds. A round does both often enough to be measured.
func linear(t *testing.T, small, large func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := 1
	for cpuOf(t, n, small) < 2*time.Millisecond {
		n *= 2
	}
	best := math.Inf(1)
	for range 5 {
		few := cpuOf(t, n, small)
		best = min(best, float64(cpuOf(t, n, large))/float64(few))
		if best <= 24 {
			return
		}
	}
	t.Errorf("16 times the input costs %.0f times as much", best)
}

func denial(values ...string) *http.Response {
	return &http.Response{
		Header:  http.Header{"Www-Authenticate": values},
		Request: &http.Request{Method: "GET", URL: &url.URL{Scheme: "https", Host: "h"}},
	}
}

// TestChallengeCost: a challenge costs in proportion to its size.
func TestChallengeCost(t *testing.T) {
	for _, piece := range []string{"a=b,", "a,", ",", `"",`, `\"`, "Bearer a=b,", "Basic ", "=", `a="`} {
		t.Run(piece, func(t *testing.T) {
			of := func(n int) func() {
				text := strings.Repeat(piece, n/len(piece))
				return func() { _ = pickChallenge(denial("Bearer realm=x, " + text)) }
			}
			linear(t, of(maxChallenge/16-100), of(maxChallenge-1600))
		})
	}
}

// TestChallengeBounds: larger challenges are refused.
func TestChallengeBounds(t *testing.T) {
	const realm = `Bearer realm="https://t/"`
	for _, tt := range []struct {
		name   string
		values []string
		ok     bool
	}{
		{"32 parameters", []string{realm + strings.Repeat(", a=b", 31)}, true},
		{"33 parameters", []string{realm + strings.Repeat(", a=b", 32)}, false},
		{"33 parameters of two", []string{realm + strings.Repeat(", a=b", 20),
			"Basic realm=x" + strings.Repeat(", a=b", 11)}, false},
		{"16 KiB", []string{realm + `, a="` + strings.Repeat("x", maxChallenge-len(realm)-6) + `"`}, true},
		{"a byte more", []string{realm + `, a="` + strings.Repeat("x", maxChallenge-len(realm)-5) +
			`"`}, false},
		{"a byte more in another", []string{realm, strings.Repeat(",", maxChallenge-len(realm)+1)}, false},
		{"8 MB", []string{realm + strings.Repeat(", a=b", 1<<20)}, false},
	} {
		err := pickChallenge(denial(tt.values...))
		if (err == nil) != tt.ok || err != nil &&
			(!errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "16384 bytes or 32 parameters")) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// TestHeaderBound: no server may send a header without end: a registry, a mirror, a token
// server, and where a redirect leads.
func TestHeaderBound(t *testing.T) {
	huge := func(w http.ResponseWriter, code int) {
		for range 40 {
			w.Header().Add("WWW-Authenticate", "Bearer "+strings.Repeat("a=b,", 2000))
		}
		w.WriteHeader(code)
	}
	for name, to := range map[string]string{"registry": "/huge", "token server": "/token",
		"redirect": "/redirect"} {
		for _, special := range []bool{false, true} {
			t.Run(fmt.Sprint(name, special), func(t *testing.T) {
				var srv *httptest.Server
				srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.URL.Path != "/v2/a/manifests/x":
						huge(w, 200)
					case to == "/huge":
						huge(w, 401)
					case to == "/token":
						w.Header().Set("WWW-Authenticate", `Bearer realm="`+srv.URL+`/token"`)
						w.WriteHeader(401)
					default:
						http.Redirect(w, r, srv.URL+"/elsewhere", http.StatusTemporaryRedirect)
					}
				}))
				defer srv.Close()
				o := quickOptions()
				if special {
					o.TLS.HostsDir = writeHosts(t, "_default",
						"server = \""+srv.URL+"\"\ndial_timeout = \"5s\"\n")
				}
				c, _, err := dialTo(t, strings.TrimPrefix(srv.URL, "http://")+"/a",
					srv.Listener.Addr().String(), o, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := asks(c, 1); !errors.Is(err, ErrRegistry) ||
					!strings.Contains(err.Error(), "headers exceeded 262144 bytes") {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// TestHostsCost: a hosts.toml costs in proportion to its size, or is refused.
func TestHostsCost(t *testing.T) {
	for name, piece := range map[string]string{
		"keys": "k%d = 1\n", "hosts": "[host.\"https://h%d.test\"]\n", "a key of many parts": "a.",
		"tables in a line": "{a=", "lists": "[",
		"a host of many lines": "a\n",
	} {
		t.Run(name, func(t *testing.T) {
			of := func(n int) func() {
				var b strings.Builder
				switch piece {
				case "{a=":
					b.WriteString("a=")
				case "a\n":
					b.WriteString("server = \"\"\"")
				}
				for i := 0; b.Len() < n; i++ {
					if strings.Contains(piece, "%d") {
						fmt.Fprintf(&b, piece, i)
					} else {
						b.WriteString(piece)
					}
				}
				switch piece {
				case "a.":
					b.WriteString("a = 1\n")
				case "{a=":
					b.WriteString("1" + strings.Repeat("}", n/3+1) + "\n")
				case "a\n":
					b.WriteString("\"\"\"\n")
				}
				root := writeHosts(t, "d", b.String())
				return func() { _, _ = readHosts(root+"/d", func(string) {}) }
			}
			linear(t, of(512), of(16*512))
		})
	}
}
