package e2e

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// lapse is a registry that takes one password of the user AWS, and answers any other as Amazon ECR does.
type lapse struct {
	valid atomic.Value // string
	code  int
}

func (l *lapse) wrap(next http.Handler) http.Handler {
	const words = `{"errors":[{"code":"DENIED","message":"Your Authorization Token has expired. Please run 'aws ecr get-login' to fetch a new one."}]}`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, ok := r.BasicAuth()
		switch {
		case ok && password == l.valid.Load():
			next.ServeHTTP(w, r)
		case ok:
			faultreg.Answer(l.code, words, "Content-Type", "application/json")(w, r, nil)
		default:
			faultreg.Answer(http.StatusUnauthorized, "", "WWW-Authenticate",
				`Basic realm="https://registry.test/"`)(w, r, nil)
		}
	})
}

// TestLoginLapses: the login of a mount and of a push lapses and is renewed, in a file or by a helper.
func TestLoginLapses(t *testing.T) {
	t.Parallel()
	file := func(t *testing.T, e *harness.Env, host string) func(string) {
		return func(password string) {
			writeBelow(t, e, "home/.docker/config.json", authFile(host, "AWS", password), 0o600)
		}
	}
	ask := func(t *testing.T, e *harness.Env, host string) func(string) {
		helper(t, e, "ecr", `echo '{"Username":"AWS","Secret":"'$(cat `+e.Path("secret")+`)'"}'`)
		writeBelow(t, e, "home/.docker/config.json", []byte(`{"credHelpers":{"`+host+`":"ecr"}}`), 0o600)
		return func(password string) { e.WriteFile("secret", []byte(password), 0o600) }
	}
	for _, tt := range []struct {
		name   string
		code   int
		source func(*testing.T, *harness.Env, string) func(string)
	}{{"403, file", 403, file}, {"400, file", 400, file}, {"403, helper", 403, ask}, {"400, helper",
		400, ask}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			l := &lapse{code: tt.code}
			l.valid.Store("first")
			srv, ref := serveBehind(t, e, faultreg.Options{Wrap: l.wrap})
			renew := tt.source(t, e, srv.Host())
			renew("first")
			m := e.Mount(ref, "--prefetch=none")
			read := func(i int) {
				t.Helper()
				if got := string(m.Read(loginFile(i))); got != loginText(i) {
					t.Errorf("file %d: got %q", i, got)
				}
			}
			read(0)
			l.valid.Store("second")
			srv.Reset()
			if _, err := m.ReadErr(loginFile(1)); err == nil {
				t.Error("a read with a login that has lapsed succeeded")
			}
			if n := len(srv.Log()); n != 1 {
				t.Errorf("%d requests with a login that has lapsed, want 1", n)
			}
			renew("second")
			deadline := time.Now().Add(harness.Limit)
			for {
				if _, err := m.ReadErr(loginFile(1)); err == nil || time.Now().After(deadline) {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			read(1)
			l.valid.Store("third") // lapsed and renewed between two reads: none fails
			renew("third")
			for i := range loginFiles {
				read(i)
			}
			m.Unmount()

			srv.On(faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut, From: 5, Count: 1},
				func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					renew("fourth")
					l.valid.Store("fourth")
					next.ServeHTTP(w, r)
				})
			dst := srv.Ref("team/new", "v1")
			e.Run("push", "oci-layout:"+harness.FixtureDir(t, "layout")+":basic", dst).Want(t, 0)
			e.Run("verify", dst).Want(t, 0)
			if l.valid.Load() != "fourth" {
				t.Error("the login did not lapse in the push")
			}
		})
	}
}

// TestPushBehindALoginPage: what stands before a registry answers in its place. The push says so and fails.
func TestPushBehindALoginPage(t *testing.T) {
	t.Parallel()
	const page = "<!DOCTYPE html><title>Log in</title>"
	other := "sha256:" + strings.Repeat("0", 64)
	html := []string{"Content-Type", "text/html; charset=utf-8"}
	manifest := faultreg.Match{Kind: faultreg.Manifest, Method: http.MethodPut}
	blob := faultreg.Match{Kind: faultreg.Upload, Method: http.MethodPut}
	for _, tt := range []struct {
		name  string
		match faultreg.Match
		fault faultreg.Fault
		says  []string
	}{
		{"manifest, 301", manifest, faultreg.Answer(301, "", "Location", "/login?secret"),
			[]string{"redirect (301)", "/login", "login page"}},
		{"blob, 301", blob, faultreg.Answer(301, "", "Location", "/login?secret"),
			[]string{"redirect (301)", "/login", "login page"}},
		{"manifest, page", manifest, faultreg.Answer(200, page, html...),
			[]string{"web page (text/html)", "nothing was stored"}},
		{"blob, page", blob, faultreg.Answer(200, page, html...),
			[]string{"web page (text/html)", "nothing was stored"}},
		{"manifest, another digest", manifest,
			faultreg.Answer(201, "", "Docker-Content-Digest", other), []string{"another digest", other}},
		{"blob, another digest", blob, faultreg.Answer(201, "", "Docker-Content-Digest", other),
			[]string{"another digest", other}},
		{"manifest not stored", manifest, faultreg.Answer(201, ""),
			[]string{"404 Not Found", "said that it took the manifest"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			srv := e.Registry()
			srv.On(faultreg.Match{Where: func(x *faultreg.Exchange) bool { return x.Path == "/login" }}, faultreg.Answer(200, page, html...))
			rule := srv.On(tt.match, tt.fault)
			dst := srv.Ref("team/new", "v1")
			args := []string{"push", "oci-layout:" + harness.FixtureDir(t, "layout") + ":basic", dst}
			r := e.Run(args...).Want(t, 5, tt.says...)
			if strings.Contains(r.Stderr, "secret") || strings.Contains(r.Stdout+r.Stderr, "pushed") {
				t.Errorf("got %v", r)
			}
			e.Run("exists", "-q", dst).Want(t, 3)
			rule.Off()
			e.Run(args...).Want(t, 0)
			e.Run("verify", dst).Want(t, 0)
		})
	}
}
