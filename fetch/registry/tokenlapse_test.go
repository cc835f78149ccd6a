package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// lapsing is a way in which registries answer a login that has lapsed.
type lapsing struct {
	code int
	body string
}

var lapses = []lapsing{
	{401, `{"errors":[{"code":"UNAUTHORIZED","message":"expired"}]}`},
	{403, `{"errors":[{"code":"DENIED","message":"Your Authorization Token has expired."}]}`},
	{400, `{"errors":[{"code":"DENIED","message":"Your Authorization Token has expired."}]}`},
	{403, ``},
}

// passwords lets a registry want the password of the user u, by Basic. Another one is answered as
// lapsed.
type passwords struct {
	valid  atomic.Value // string
	lapsed lapsing
	sent   sync.Map // counts of requests by password
}

func (p *passwords) refuse(w http.ResponseWriter, r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	n, _ := p.sent.LoadOrStore(password, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
	switch {
	case ok && user == "u" && password == p.valid.Load():
		return false
	case !ok || p.lapsed.code == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
	}
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	w.WriteHeader(p.lapsed.code)
	fmt.Fprint(w, p.lapsed.body)
	return true
}

func (p *passwords) count(password string) int64 {
	n, ok := p.sent.Load(password)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// aged lets a second pass for an image's logins.
func aged(im *testImage) {
	tokens := im.c.route[0].auth.Cache.(*tokenCache)
	tokens.mu.Lock()
	defer tokens.mu.Unlock()
	now := tokens.now
	tokens.now = func() time.Time { return now().Add(denialLasts) }
}

// loginSource is where a test keeps the password of u.
type loginSource struct {
	name string
	set  func(password string)
	asks func() int // how often it was asked, -1: unknown
	env  func(string) string
}

// loginSources makes a login file and a credential helper for a host.
func loginSources(t *testing.T, host string) []loginSource {
	dir := t.TempDir()
	file, secret, log := filepath.Join(dir, "auth.json"), filepath.Join(dir,
		"secret"), filepath.Join(dir, "log")
	registrytest.CredentialHelpers(t,
		map[string]string{"lapse": `echo x >>"` + log +
			`"; echo '{"Username":"u","Secret":"'$(cat "` + secret + `")'"}'`})
	config := registrytest.WriteFile(t, filepath.Join(dir, "config.json"),
		`{"credHelpers":{"`+host+`":"lapse"}}`, 0o600)
	return []loginSource{
		{"file", func(password string) {
			registrytest.WriteFile(t, file, registrytest.LoginFile(host, "u:"+password), 0o600)
		}, func() int { return -1 }, registrytest.Env("REGISTRY_AUTH_FILE", file)},
		{"helper", func(password string) { registrytest.WriteFile(t, secret, password, 0o600) }, func() int {
			raw, _ := os.ReadFile(log)
			return strings.Count(string(raw), "x")
		}, registrytest.Env("REGISTRY_AUTH_FILE", config)},
	}
}

// TestLoginLapses: a new login is found when the old one is refused, in each way of saying so, and
// each is sent once.
func TestLoginLapses(t *testing.T) {
	parts := []registrytest.Layer{{Content: []byte("one")}, {Content: []byte("two")},
		{Content: []byte("three")}}
	for _, lapsed := range lapses {
		f := registrytest.NewServer(t)
		f.Serve(t, parts...)
		for _, src := range loginSources(t, f.Host()) {
			name := fmt.Sprintf("%d, %s", lapsed.code, src.name)
			p := &passwords{lapsed: lapsed}
			f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool { return p.refuse(w, r) })
			o := quickOptions()
			o.Login.Getenv = src.env
			src.set("first")
			p.valid.Store("first")
			im := mustOpenImage(t, f.Ref(t), o)
			read := func(i int) error {
				return im.Blob(context.Background(), parts[i].Logical(),
					int64(len(parts[i].Content)), &registrytest.Buffer{})
			}
			before := p.count("first")
			if err := read(0); err != nil || p.count("first") != before+1 {
				t.Errorf("%s: %v, %d requests", name, err, p.count("first")-before)
			}
			p.valid.Store("second")
			src.set("second")
			if err := read(1); err != nil || p.count("first") != before+2 || p.count("second") != 1 {
				t.Errorf("%s: renewed: %v, %d requests with the old one, %d with the new", name,
					err, p.count("first")-before-1, p.count("second"))
			}
			p.valid.Store("third")
			for range 3 {
				aged(im)
				if err := read(2); !errors.Is(err, ErrDenied) ||
					lapsed.body != "" && !strings.Contains(err.Error(), "expired") {
					t.Errorf("%s: not renewed: %v", name, err)
				}
			}
			if p.count("second") != 4 {
				t.Errorf("%s: not renewed: %d requests with the stale one for three reads", name,
					p.count("second")-1)
			}
			src.set("third")
			aged(im)
			if err := read(2); err != nil || p.count("second") != 5 || p.count("third") != 1 {
				t.Errorf("%s: renewed again: %v, %d and %d requests", name, err, p.count("second"),
					p.count("third"))
			}
			if n := src.asks(); n != -1 && n != 6 {
				t.Errorf("%s: asked %d times, want 6: at the start and at each refusal", name, n)
			}
		}
	}
}

// TestLapseAsksOnce: reads that are refused together ask the source once.
func TestLapseAsksOnce(t *testing.T) {
	for _, found := range []bool{true, false} {
		f := registrytest.NewServer(t)
		parts := manyBlobs(32)
		f.Serve(t, parts...)
		src := loginSources(t, f.Host())[1]
		p := &passwords{lapsed: lapses[1]}
		f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool { return p.refuse(w, r) })
		o := quickOptions()
		o.Login.Getenv, o.MaxConns = src.env, 32
		src.set("first")
		p.valid.Store("first")
		im := mustOpenImage(t, f.Ref(t), o)
		before := p.count("first")
		p.valid.Store("second")
		if found {
			src.set("second")
		}
		var wg sync.WaitGroup
		for _, part := range parts {
			wg.Go(func() {
				if err := im.Blob(context.Background(), part.Logical(), int64(len(part.Content)),
					&registrytest.Buffer{}); (err == nil) != found {
					t.Errorf("found %t: got %v", found, err)
				}
			})
		}
		wg.Wait()
		if n := p.count("first") - before; n > 32 || !found && n != 32 || found && p.count("second") != 32 {
			t.Errorf("found %t: %d and %d requests for 32 blobs", found, n, p.count("second"))
		}
		if n := src.asks(); n != 2 {
			t.Errorf("found %t: the helper ran %d times, want 2", found, n)
		}
	}
}

// TestLapseWithoutSource: what cannot be another login is not sent twice, and nor is a request
// without one.
func TestLapseWithoutSource(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	for name, vars := range map[string]func(string) string{
		"user":   registrytest.Env("OCI_USERNAME", "u", "OCI_PASSWORD", "p"),
		"bearer": registrytest.Env("OCI_BEARER", "t"), "anonymous": registrytest.NoEnv,
	} {
		for _, code := range []int{400, 401, 403} {
			f := registrytest.NewServer(t)
			f.Serve(t, p)
			lapsed := false
			f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") == "" && name == "user" || lapsed && code == 401 {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				}
				switch {
				case r.Header.Get("Authorization") == "" && name == "user":
					w.WriteHeader(http.StatusUnauthorized)
				case lapsed:
					w.WriteHeader(code)
				}
				return lapsed || r.Header.Get("Authorization") == "" && name == "user"
			})
			o := quickOptions()
			o.Login.Getenv = vars
			im := mustOpenImage(t, f.Ref(t), o)
			f.Forget()
			lapsed = true
			err := im.Blob(context.Background(), p.Logical(), 7, &registrytest.Buffer{})
			if err == nil || len(f.Requests()) != 1 {
				t.Errorf("%s, %d: %v after %d requests, want 1", name, code, err, len(f.Requests()))
			}
		}
	}
}

// TestTokenLapses: a token that ends before its time, and is answered with 403, is renewed once for
// all. A token that was never good is not, unless there is another login.
func TestTokenLapses(t *testing.T) {
	f := registrytest.NewServer(t)
	parts := []registrytest.Layer{{Content: []byte("one")}, {Content: []byte("two")}}
	f.Serve(t, parts...)
	dir := t.TempDir()
	file := func(password string) string {
		return registrytest.WriteFile(t, dir+"/auth.json",
			registrytest.LoginFile(f.Host(), "u:"+password), 0o600)
	}
	a := withTokens(t, f, "Basic "+registrytest.Base64("u:p"))
	never := false
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		got := r.Header.Get("Authorization")
		switch {
		case got == "":
			w.Header().Set("WWW-Authenticate",
				fmt.Sprintf(`Bearer realm="%s/token",service="s",scope="repository:a:pull"`, a.URL))
			w.WriteHeader(http.StatusUnauthorized)
		case never || got != fmt.Sprintf("Bearer token-%d", a.valid.Load()):
			w.WriteHeader(http.StatusForbidden)
		default:
			return false
		}
		return true
	})
	o := quickOptions()
	o.Login.Getenv = registrytest.Env("REGISTRY_AUTH_FILE", file("p"))
	im := mustOpenImage(t, f.Ref(t), o)
	for i, step := range []struct {
		name             string
		before           func()
		ok               bool
		requests, issued int64
	}{
		{"it ends", func() { a.valid.Store(99) }, true, 2, 2},
		{"it is good", func() {}, true, 1, 2},
		{"it has no right", func() { never = true }, false, 2, 3},
		{"nor has the next", func() {}, false, 1, 3},
		{"and later", func() { aged(im) }, false, 1, 3},
		{"another login has", func() {
			never = false
			a.valid.Store(99)
			a.basic = "Basic " + registrytest.Base64("u:q")
			file("q")
			aged(im)
		}, true, 2, 4},
	} {
		step.before()
		f.Forget()
		err := im.Blob(context.Background(), parts[i%2].Logical(), 3, &registrytest.Buffer{})
		if (err == nil) != step.ok || int64(len(f.Requests())) != step.requests ||
			a.issued.Load() != step.issued {
			t.Errorf("%s: %v after %d requests and %d tokens, want %d and %d", step.name, err,
				len(f.Requests()), a.issued.Load(), step.requests, step.issued)
		}
	}
}

// TestTokenServerRefuses a login that has lapsed, in each way: the next token is got with the new
// one, and until then the stale one is sent once a second.
func TestTokenServerRefuses(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	for _, lapsed := range append(lapses, lapsing{400,
		`{"error":"invalid_grant","error_description":"expired"}`}) {
		for _, identity := range []bool{false, true} {
			name := fmt.Sprintf("%d %.12s, identity token: %t", lapsed.code, lapsed.body, identity)
			f := registrytest.NewServer(t)
			f.Serve(t, p)
			dir := t.TempDir()
			file := func(secret string) string {
				text := registrytest.LoginFile(f.Host(), "u:"+secret)
				if identity {
					text = `{"auths":{"` + f.Host() + `":{"identitytoken":"` + secret + `"}}}`
				}
				return registrytest.WriteFile(t, dir+"/auth.json", text, 0o600)
			}
			a := withTokens(t, f, "")
			var asked atomic.Int64
			valid := "first"
			a.answer = func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				_, secret, _ := r.BasicAuth()
				if identity {
					secret = r.PostFormValue("refresh_token")
				}
				if secret != valid {
					w.WriteHeader(lapsed.code)
					fmt.Fprint(w, lapsed.body)
					return
				}
				a.valid.Store(a.issued.Add(1))
				fmt.Fprintf(w, `{"access_token":"token-%d"}`, a.issued.Load())
			}
			o := quickOptions()
			o.Login.Getenv = registrytest.Env("REGISTRY_AUTH_FILE", file("first"))
			im := mustOpenImage(t, f.Ref(t), o)
			valid = "second"
			a.valid.Store(99)
			for range 5 {
				if err := im.Blob(context.Background(), p.Logical(), 7,
					&registrytest.Buffer{}); err == nil || strings.Contains(err.Error(), "first") {
					t.Errorf("%s: not renewed: %v", name, err)
				}
			}
			if asked.Load() != 2 {
				t.Errorf("%s: the token server was asked %d times, want 2", name, asked.Load())
			}
			file("second")
			aged(im)
			if err := im.Blob(context.Background(), p.Logical(), 7,
				&registrytest.Buffer{}); err != nil || asked.Load() != 3 {
				t.Errorf("%s: renewed: %v after %d requests for tokens, want 3", name, err, asked.Load())
			}
		}
	}
}

// TestPushLapses: a login lapses in the middle of a push, at whatever request, and its file has a
// new one.
func TestPushLapses(t *testing.T) {
	blobs := [][]byte{[]byte("one"), []byte("two"), []byte("three")}
	for _, lapsed := range lapses {
		for _, at := range []string{"HEAD /blobs/", "POST /uploads/", "PUT /uploads/",
			"PUT /manifests/", "HEAD /manifests/"} {
			s := registrytest.NewDestination(t)
			src := loginSources(t, strings.TrimPrefix(s.URL, "http://"))[0]
			src.set("first")
			p := &passwords{lapsed: lapsed}
			p.valid.Store("first")
			var once sync.Once
			method, where, _ := strings.Cut(at, " ")
			s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
				if _, _, ok := r.BasicAuth(); ok && r.Method == method &&
					strings.Contains(r.URL.Path, where) {
					once.Do(func() { src.set("second"); p.valid.Store("second") })
				}
				return p.refuse(w, r)
			}
			o := quickOptions()
			o.Login.Getenv = src.env
			err := pushTo(t, s, o, blobs...)
			if err != nil || len(s.Blobs) != len(blobs) || len(s.Manifests) != 1 {
				t.Errorf("%d at %s: %v, %d blobs of %d there", lapsed.code, at, err, len(s.Blobs), len(blobs))
			}
			for d, b := range s.Blobs {
				if registrytest.DigestOf(b) != d {
					t.Errorf("%d at %s: %s holds %s", lapsed.code, at, d, registrytest.DigestOf(b))
				}
			}
		}
	}
}
