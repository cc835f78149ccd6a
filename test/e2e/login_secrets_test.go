package e2e

import (
	"encoding/base64"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// Secrets with a text of their own each, so that a leak tells where it comes from.
const (
	secretPassword = "S3CRET-password"
	secretToken    = "S3CRET-token"
	secretIdentity = "S3CRET-identity"
	secretQuery    = "S3CRET-query"
	secretHelper   = "S3CRET-helper"
	secretProxy    = "S3CRET-proxy"
)

// noSecrets looks for secrets in everything that pfmount left or said; g may be nil.
func noSecrets(t *testing.T, e *harness.Env, g *guarded, said ...string) {
	t.Helper()
	secrets := []string{
		"S3CRET", base64.StdEncoding.EncodeToString([]byte("u:" + secretPassword)),
		base64.StdEncoding.EncodeToString([]byte(secretPassword)),
	}
	if g != nil {
		for _, issued := range g.tokens.Issued() {
			secrets = append(secrets, issued.Token)
		}
	}
	look := func(where, text string) {
		for _, s := range secrets {
			if i := strings.Index(text, s); i >= 0 {
				t.Errorf("%s holds a secret: …%s", where, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
	for _, text := range said {
		look("the output", text)
	}
	look("the log", e.Logs())
	for _, pid := range harness.Pids(e.Bin) {
		look("the command line", strings.Join(harness.Cmdline(pid), " "))
	}
	err := e.Do(func() error {
		for _, dir := range []string{e.CacheDir(), e.Path("state"), e.Path("tmp")} {
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				data, err := os.ReadFile(path)
				look(path, path+" "+string(data))
				return err
			})
			if err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestLoginSecrets puts known texts in every place where a secret can be, lets everything go well
// and everything go wrong, at the highest log level, and looks for them in all that comes out.
func TestLoginSecrets(t *testing.T) {
	t.Parallel()
	config := func(text string) func(*testing.T, *harness.Env, *guarded) {
		return func(t *testing.T, e *harness.Env, g *guarded) {
			auth := base64.StdEncoding.EncodeToString([]byte("u:" + secretPassword))
			text := strings.NewReplacer("HOST", g.Host(), "AUTH", auth, "PASSWORD",
				secretPassword).Replace(text)
			writeBelow(t, e, "home/.docker/config.json", []byte(text), 0o600)
			g.tokens.Refresh = map[string]string{secretIdentity: "u"}
		}
	}
	with := func(script string) func(*testing.T, *harness.Env, *guarded) {
		return func(t *testing.T, e *harness.Env, g *guarded) {
			helper(t, e, "s", script)
			config(`{"credsStore":"s"}`)(t, e, g)
		}
	}
	set := func(pairs ...string) func(*testing.T, *harness.Env, *guarded) {
		return func(_ *testing.T, e *harness.Env, _ *guarded) {
			for i := 0; i < len(pairs); i += 2 {
				e.Set(pairs[i], pairs[i+1])
			}
		}
	}
	tests := []struct {
		name    string
		prepare func(*testing.T, *harness.Env, *guarded)
		code    int
	}{
		{"variables", set("OCI_USERNAME", "u", "OCI_PASSWORD", secretPassword), 0},
		{"wrong variables", set("OCI_USERNAME", "u", "OCI_PASSWORD", secretPassword+"!"), 5},
		{"wrong bearer", set("OCI_BEARER", secretToken), 5},
		{"bearer that cannot be sent", set("OCI_BEARER", secretToken+"\n"), 5},
		{"file", config(`{"auths":{"HOST":{"auth":"AUTH"}}}`), 0},
		{"cut file", config(`{"auths":{"HOST":{"auth":"AUTH`), 5},
		{"bad auth", config(`{"auths":{"HOST":{"auth":"AUTH.PASSWORD"}}}`), 5},
		{"auth in the clear", config(`{"auths":{"HOST":{"auth":"u:PASSWORD"}}}`), 5},
		{"identity token", config(`{"auths":{"HOST":{"identitytoken":"` + secretIdentity + `"}}}`), 0},
		{"wrong identity token", config(`{"auths":{"HOST":{"identitytoken":"` + secretIdentity + `!"}}}`), 5},
		{"helper", with(`echo ` + secretHelper + ` >&2; echo '{"Username":"u","Secret":"` +
			secretPassword + `"}'`), 0},
		{"helper that prints", with(`echo ` + secretHelper + ` >&2; echo ` + secretHelper), 5},
		{"helper that fails", with(`echo ` + secretHelper + ` >&2; echo ` + secretHelper + `; exit 1`), 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			g := guard(t, e, at{})
			g.tokens.Users["u"] = secretPassword
			tt.prepare(t, e, g)
			dir := e.MountDir()
			r := e.Run("-v", g.ref, dir).Want(t, tt.code)
			if tt.code != 0 {
				noSecrets(t, e, g, r.Stdout, r.Stderr)
				return
			}
			m := e.Mounted(g.ref, dir)
			m.Read(loginFile(0))
			noSecrets(t, e, g, r.Stdout, r.Stderr)
			breakDown(t, e, g, m)
			status := e.Run("status", "--json", m.Dir).Want(t, 0)
			noSecrets(t, e, g, r.Stdout, r.Stderr, status.Stdout, status.Stderr)
		})
	}
}

// breakDown reads from a mount whose blobs are elsewhere, under signed URLs that do not work, and
// whose servers repeat what they are told.
func breakDown(t *testing.T, e *harness.Env, g *guarded, m *harness.Mount) {
	t.Helper()
	echo := func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		r.ParseForm()
		auth := r.Header.Get("Authorization")
		_, password, _ := r.BasicAuth()
		faultreg.Answer(403, "no: "+auth+" "+password+" "+r.URL.RawQuery+" "+r.PostForm.Get("refresh_token"))(w, r, nil)
	}
	store, err := faultreg.New(faultreg.Options{Backend: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	store.On(faultreg.Match{}, echo)
	file := 1
	fails := func(what string) {
		t.Helper()
		if _, err := m.ReadErr(loginFile(file)); err == nil {
			t.Errorf("%s: read all the same", what)
		}
		file++
	}
	blobs := faultreg.Match{Kind: faultreg.Blob}
	rule := g.On(blobs, faultreg.Redirect(store.URL(), "X-Signature="+secretQuery+"&"+secretQuery+"x=1"))
	fails("a signed URL that is refused")
	if log := store.Log(); len(log) == 0 {
		t.Error("nobody came to the store")
	}
	for _, x := range store.Log() {
		if x.Header.Get("Authorization") != "" || x.Header.Get("Referer") != "" {
			t.Errorf("the store was told: %v", x.Header)
		}
	}
	rule.Off()
	for _, to := range []string{"ftp://x/?" + secretQuery,
		"http://u:" + secretPassword + "@127.0.0.1:1/?" + secretQuery, "http://[::1/" + secretQuery} {
		rule = g.On(blobs, faultreg.Answer(307, "", "Location", to))
		fails(to)
		rule.Off()
	}
	rule = g.On(blobs, echo)
	fails("a registry that repeats what it is told")
	rule.Off()
	g.realm.On(faultreg.Match{}, echo)
	g.tokens.Revoke()
	fails("a token server that repeats what it is told")
}

// TestConfigSecrets: the headers of hosts.toml and what stands in a client key's file are in no
// message, whether all is well, the registry repeats the headers, or the files are broken.
func TestConfigSecrets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cert, key, err := s.ca.Client()
	if err != nil {
		t.Fatal(err)
	}
	conf := s.conf("registry.test")
	s.ca.Demand(conf)
	srv, ref := s.registry("5000", conf)
	s.etcFile("containerd/certs.d/_default/hosts.toml",
		[]byte("[header]\nX-Token = \"Token "+secretToken+"\"\n"))
	marked := s.file("user.key", append([]byte("The text before the PEM: "+secretPassword+"\n"), key...))
	good := []string{"-v", "--ca-file", s.file("ca.pem", s.ca.PEM), "--client-cert",
		s.file("user.cert", cert), "--client-key", marked}
	body := strings.Split(string(key), "\n")[1] // of the key, in base64
	quiet := func(r harness.Result) {
		t.Helper()
		noSecrets(t, s.e, nil, r.Stdout, r.Stderr)
		if strings.Contains(r.Stdout+r.Stderr+s.e.Logs(), body) {
			t.Errorf("the key is shown: %v", r)
		}
	}
	// A mount works with both, and meets a registry that repeats what it is told.
	dir := s.e.MountDir()
	quiet(s.e.Run(append(slices.Clone(good), ref, dir)...).Want(t, 0))
	for _, x := range srv.Log() {
		if x.Header.Get("X-Token") != "Token "+secretToken {
			t.Errorf("%s %s without the header", x.Method, x.Path)
		}
	}
	rule := srv.On(faultreg.Match{}, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		token := r.Header.Get("X-Token")
		faultreg.Answer(403, "no: "+token+" "+strings.TrimPrefix(token, "Token "))(w, r, nil)
	})
	if r := s.e.Sh(`cat "$1/world/fs/f"`, dir); r.Code == 0 {
		t.Errorf("read all the same: %v", r)
	}
	quiet(s.e.Run("status", "--json", dir).Want(t, 0))
	s.e.Run("umount", dir).Want(t, 0)
	for _, command := range []string{"inspect", "doctor"} {
		quiet(s.e.Run(append(append([]string{command}, good...), ref)...).Want(t, 5))
	}
	rule.Off()
	for _, broken := range []string{secretPassword,
		"-----BEGIN PRIVATE KEY-----\n" + secretPassword +
			"\n-----END PRIVATE KEY-----\n", string(key[:len(key)/2])} {
		s.file("broken.key", []byte(broken))
		options := append(slices.Clone(good[:len(good)-1]), s.e.Path("broken.key"))
		for _, command := range []string{"inspect", "doctor"} {
			quiet(s.e.Run(append(append([]string{command}, options...), ref)...).Want(t, 1))
		}
	}
	for _, broken := range []string{"X-Token = 7734773477", "X-Token = " + secretToken,
		"X-Token = [\"" + secretToken + "\", 1]", "X-Token = \"" + secretToken} {
		s.etcFile("containerd/certs.d/_default/hosts.toml", []byte("[header]\n"+broken+"\n"))
		for _, command := range []string{"inspect", "doctor"} {
			r := s.e.Run(append(append([]string{command}, good...), ref)...).Want(t, 1)
			if quiet(r); strings.Contains(r.Stdout+r.Stderr, "7734773477") {
				t.Errorf("the header is shown: %v", r)
			}
		}
	}
}

// TestLoginProxySecret: the password of a proxy is in no message, whether the proxy is there or not.
func TestLoginProxySecret(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	space := harness.Network(t, "192.0.2.1", "192.0.2.2")
	e.Prefix = space.Prefix()
	g := guard(t, e, at{space.Listen, "192.0.2.1:5000", "192.0.2.1:5001"})
	for proxy, code := range map[string]int{
		"http://u:" + secretProxy + "@192.0.2.2:1":    5,
		"http://u:" + secretProxy + "@192.0.2.1:5001": 5,
		"u:" + secretProxy:                            1,
		"http://[" + secretProxy:                      1,
		"odd://u:" + secretProxy + "@192.0.2.2":       1,
	} {
		e.Set("HTTP_PROXY", proxy)
		e.Set("HTTPS_PROXY", proxy)
		for _, options := range [][]string{{"inspect", "-v"}, {"inspect", "-v", "--plain-http"},
			{"doctor", "-v"}} {
			r := e.Run(append(options, g.ref)...).Want(t, code)
			if code == 1 && !strings.Contains(r.Stderr+r.Stdout, "HTTPS_PROXY") {
				t.Errorf("the variable is not named: %v", r)
			}
			noSecrets(t, e, g, r.Stdout, r.Stderr)
		}
	}
}
