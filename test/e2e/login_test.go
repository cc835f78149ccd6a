package e2e

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// guarded is a registry that wants a token of a server of its own.
type guarded struct {
	*faultreg.Server
	tokens *faultreg.Tokens
	realm  *faultreg.Server
	ref    string // of an image with loginFiles files
}

// loginFiles is the number of small files in a guarded registry's image.
const loginFiles = 40

// at says where a guarded registry and its token server listen.
type at struct {
	listen          func(string) (net.Listener, error)
	registry, realm string // addresses
}

// guard puts a guarded registry with an image in place of the Env's own. The user u has the password p:w.
func guard(t *testing.T, e *harness.Env, where at) *guarded {
	t.Helper()
	tokens, err := faultreg.NewTokens()
	if err != nil {
		t.Fatal(err)
	}
	tokens.Users = map[string]string{"u": "p:w"}
	g := &guarded{tokens: tokens}
	if g.realm, err = faultreg.New(faultreg.Options{Backend: tokens, Addr: where.realm,
		Listen: where.listen}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.realm.Close() })
	wrap, err := tokens.Guard(g.realm.URL()+"/v2/token", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g.Server, g.ref = serveBehind(t, e, faultreg.Options{Wrap: wrap, Addr: where.registry,
		Listen: where.listen})
	return g
}

// serveBehind puts a registry with an image in place of the Env's own.
func serveBehind(t *testing.T, e *harness.Env, o faultreg.Options) (*faultreg.Server, string) {
	t.Helper()
	srv, err := faultreg.New(o)
	if err != nil {
		t.Fatal(err)
	}
	e.UseRegistry(srv)
	var spec imgbuild.Spec
	for i := range loginFiles {
		spec.Entries = append(spec.Entries, imgbuild.File(loginFile(i)[len("world/fs/"):], "0644",
			imgbuild.Text(loginText(i))))
	}
	ref := e.Push(harness.Build(t, spec))
	srv.Reset()
	return srv, ref
}

func loginFile(i int) string { return fmt.Sprintf("world/fs/%02d", i) }
func loginText(i int) string { return fmt.Sprintf("file %d\n", i) }

// denials is the number of 401 that a registry answered.
func denials(srv *faultreg.Server) int {
	return srv.Count(faultreg.Match{Where: func(x *faultreg.Exchange) bool { return x.Status == http.StatusUnauthorized }})
}

// authFile is a login file with one login.
func authFile(key, user, password string) []byte {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, key, auth)
}

// writeBelow writes a file of the user's, with the folders above it.
func writeBelow(t *testing.T, e *harness.Env, name string, data []byte, mode os.FileMode) string {
	t.Helper()
	for i, c := range name {
		if c != '/' {
			continue
		}
		if _, err := os.Stat(e.Path(name[:i])); err != nil {
			e.MakeDir(name[:i])
		}
	}
	return e.WriteFile(name, data, mode)
}

// helper puts a credential helper into the Env's PATH.
func helper(t *testing.T, e *harness.Env, name, script string) {
	t.Helper()
	path := writeBelow(t, e, "bin/docker-credential-"+name, []byte("#!/bin/sh\n"+script), 0o755)
	e.Set("PATH", filepath.Dir(path)+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

// TestLoginSources: each place that a login may come from opens a private image, costs one token,
// and holds after the first token has ended, in the background.
func TestLoginSources(t *testing.T) {
	t.Parallel()
	const answer = `read server; [ "$1" = get ] && [ -n "$HOME" ] && echo '{"ServerURL":"'$server'","Username":"u","Secret":"p:w"}'`
	file := func(name string) func(*testing.T, *harness.Env, *guarded) []string {
		return func(t *testing.T, e *harness.Env, g *guarded) []string {
			writeBelow(t, e, name, authFile(g.Host(), "u", "p:w"), 0o600)
			return nil
		}
	}
	config := func(text string) func(*testing.T, *harness.Env, *guarded) []string {
		return func(t *testing.T, e *harness.Env, g *guarded) []string {
			helper(t, e, "test", answer)
			g.tokens.Refresh = map[string]string{"identity": "u"}
			writeBelow(t, e, "home/.docker/config.json",
				[]byte(strings.ReplaceAll(text, "HOST", g.Host())), 0o600)
			return nil
		}
	}
	tests := []struct {
		name    string
		prepare func(*testing.T, *harness.Env, *guarded) (command []string)
		method  string // of the requests for tokens
	}{
		{"variables", func(_ *testing.T, e *harness.Env, _ *guarded) []string {
			e.Set("OCI_USERNAME", "u")
			e.Set("OCI_PASSWORD", "p:w")
			return nil
		}, "GET"},
		{"variables before files", func(t *testing.T, e *harness.Env, g *guarded) []string {
			e.Set("OCI_USERNAME", "u")
			e.Set("OCI_PASSWORD", "p:w")
			writeBelow(t, e, "home/.docker/config.json", authFile(g.Host(), "u", "wrong"), 0o600)
			return nil
		}, "GET"},
		{"options", func(_ *testing.T, e *harness.Env, _ *guarded) []string {
			return []string{"bash", "-c", `exec "$@" <"$0"`,
				e.WriteFile("password", []byte("p:w\n"), 0o600), e.Bin, "--username", "u", "--password-stdin"}
		}, "GET"},
		{"REGISTRY_AUTH_FILE", func(t *testing.T, e *harness.Env, g *guarded) []string {
			e.Set("REGISTRY_AUTH_FILE", "auth/a.json") // from HOME, where commands run
			return file("home/auth/a.json")(t, e, g)
		}, "GET"},
		{"XDG_RUNTIME_DIR", file("run/containers/auth.json"), "GET"},
		{"~/.config", file("home/.config/containers/auth.json"), "GET"},
		{"DOCKER_CONFIG", func(t *testing.T, e *harness.Env, g *guarded) []string {
			e.Set("DOCKER_CONFIG", e.Path("docker"))
			return file("docker/config.json")(t, e, g)
		}, "GET"},
		{"~/.docker", file("home/.docker/config.json"), "GET"},
		{"path", config(`{"auths":{"HOST/team":{"auth":"dTpwOnc="},"HOST":{"auth":"dTp3cm9uZw=="},"HOST/other":{"auth":"dTp3cm9uZw=="}}}`), "GET"},
		{"credHelpers", config(`{"credHelpers":{"HOST":"test"},"credsStore":"gone"}`), "GET"},
		{"credsStore", config(`{"credsStore":"test"}`), "GET"},
		{"identity token", config(`{"auths":{"HOST":{"identitytoken":"identity"}}}`), "POST"},
		{"identity token of a helper", func(t *testing.T, e *harness.Env, g *guarded) []string {
			config(`{"credsStore":"tok"}`)(t, e, g)
			helper(t, e, "tok", `echo '{"Username":"<token>","Secret":"identity"}'`)
			return nil
		}, "POST"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			g := guard(t, e, at{})
			command, dir := tt.prepare(t, e, g), e.MountDir()
			if command == nil {
				command = []string{e.Bin}
			}
			e.Command(append(command, "-v", "--prefetch=none", g.ref, dir)...).Wait(harness.Limit).Want(t, 0)
			m := e.Mounted(g.ref, dir)
			for i, want := range []int{1, 1, 2, 2} { // tokens
				if i == 2 {
					g.tokens.Revoke()
				}
				if got := string(m.Read(loginFile(i))); got != loginText(i) {
					t.Errorf("file %d: got %q", i, got)
				}
				if n := len(g.tokens.Issued()); n != want {
					t.Errorf("after file %d: %d tokens, want %d", i, n, want)
				}
			}
			for _, issued := range g.tokens.Issued() {
				if issued.User != "u" || issued.Method != tt.method {
					t.Errorf("a token by %s for %q, want %s for u", issued.Method, issued.User, tt.method)
				}
			}
			if n := denials(g.Server); n != 2 {
				t.Errorf("%d times 401, want 2: at the start, and when the token had ended", n)
			}
			for _, arg := range harness.Cmdline(m.PID) {
				if strings.Contains(arg, "p:w") {
					t.Errorf("the password is in the command line: %q", arg)
				}
			}
		})
	}
}

// TestLoginBearer: a token of the user's own is sent at once, and no other is asked for.
func TestLoginBearer(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	g := guard(t, e, at{})
	e.Set("OCI_USERNAME", "u")
	e.Set("OCI_PASSWORD", "p:w")
	e.Run("inspect", g.ref).Want(t, 0)
	e.Set("OCI_BEARER", g.tokens.Issued()[0].Token)
	g.Reset()
	e.Run("cat", g.ref, loginFile(0)).Want(t, 0)
	if n := len(g.tokens.Issued()); n != 1 || denials(g.Server) != 0 {
		t.Errorf("%d tokens, want 1; %d times 401, want none", n, denials(g.Server))
	}
	g.tokens.Revoke()
	g.Reset()
	e.Run("cat", g.ref, loginFile(1)).Want(t, 5, "401", "the token in OCI_BEARER", "expired", g.ref)
	if n := len(g.tokens.Issued()); n != 1 || denials(g.Server) != 1 {
		t.Errorf("%d tokens, want 1; %d times 401, want 1", n, denials(g.Server))
	}
}

// TestLoginBasic: a registry with passwords.
func TestLoginBasic(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	wrap, err := faultreg.Passwords(map[string]string{"u": "p:w"}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	srv, ref := serveBehind(t, e, faultreg.Options{Wrap: wrap})
	e.Run("inspect", ref).Want(t, 5, "401", "no credentials", ref)
	path := writeBelow(t, e, "home/.docker/config.json", authFile(srv.Host(), "u", "p:w"), 0o600)
	m := e.Mount(ref, "--prefetch=none")
	if got := string(m.Read(loginFile(0))); got != loginText(0) {
		t.Errorf("got %q", got)
	}
	if n := denials(srv); n != 2 {
		t.Errorf("%d times 401, want 2: without a login, and at the start", n)
	}
	e.WriteFile("home/.docker/config.json", authFile(srv.Host(), "u", "wrong"), 0o600)
	srv.Reset()
	e.Run("inspect", ref).Want(t, 5, "401", "the user u of", path, ref)
	if n := len(srv.Log()); n != 2 {
		t.Errorf("%d requests with a wrong password, want 2", n)
	}
	if got := string(m.Read(loginFile(1))); got != loginText(1) {
		t.Errorf("the mount that has logged in: got %q", got)
	}
}

// TestLoginPush: a push asks for a token to push with, once, and goes on when that has ended.
func TestLoginPush(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	g := guard(t, e, at{})
	writeBelow(t, e, "home/.docker/config.json", authFile(g.Host(), "u", "p:w"), 0o600)
	g.On(faultreg.Match{Kind: faultreg.Manifest, Method: "PUT", Count: 1},
		func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			g.tokens.Revoke()
			next.ServeHTTP(w, r)
		})
	ref := g.Server.Ref("team/new", "v1")
	e.Run("push", "-q", "oci-layout:"+e.CopyFixture("layout")+":basic", ref).Want(t, 0)
	if issued := g.tokens.Issued(); len(issued) != 2 ||
		strings.Join(issued[0].Scopes, " ") != "repository:team/new:pull,push" {
		t.Errorf("tokens: got %+v, want 2 for repository:team/new:pull,push", issued)
	}
	e.Run("verify", ref).Want(t, 0)
}
