package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// TestLoginDenied: what a mount says when it may not, and how often it asks.
func TestLoginDenied(t *testing.T) {
	t.Parallel()
	config := func(text string) func(*testing.T, *harness.Env, *guarded) {
		return func(t *testing.T, e *harness.Env, g *guarded) {
			writeBelow(t, e, "home/.docker/config.json",
				[]byte(strings.ReplaceAll(text, "HOST", g.Host())), 0o600)
		}
	}
	with := func(name, script string) func(*testing.T, *harness.Env, *guarded) {
		return func(t *testing.T, e *harness.Env, g *guarded) {
			helper(t, e, name, script)
			config(fmt.Sprintf(`{"credsStore":%q}`, name))(t, e, g)
		}
	}
	answer := func(status int, body string) func(*testing.T, *harness.Env, *guarded) {
		return func(_ *testing.T, e *harness.Env, g *guarded) {
			e.Set("OCI_USERNAME", "u")
			e.Set("OCI_PASSWORD", "p:w")
			g.On(faultreg.Match{Kind: faultreg.Manifest},
				faultreg.Answer(status, body, "Content-Type", "application/json"))
		}
	}
	tests := []struct {
		name          string
		prepare       func(*testing.T, *harness.Env, *guarded)
		says          []string
		asked, tokens int // requests to the registry, to the token server
	}{
		{"nothing", func(*testing.T, *harness.Env, *guarded) {},
			[]string{"401", "no credentials", "none were found", "docker login"}, 1, 1},
		{"half a login", func(_ *testing.T, e *harness.Env, _ *guarded) { e.Set("OCI_USERNAME", "u") }, []string{"401", "OCI_PASSWORD is not"}, 1, 1},
		{"wrong password", func(_ *testing.T, e *harness.Env, _ *guarded) {
			e.Set("OCI_USERNAME", "u")
			e.Set("OCI_PASSWORD", "unfit")
		}, []string{"401", "the user u of OCI_USERNAME", "incorrect username", "log in again"}, 1, 1},
		{"wrong password in a file", config(`{"auths":{"HOST":{"auth":"dTp1bmZpdA=="}}}`),
			[]string{"401", "the user u of ", "home/.docker/config.json", "log in again"}, 1, 1},
		{"no right", func(_ *testing.T, e *harness.Env, g *guarded) {
			e.Set("OCI_USERNAME", "u")
			e.Set("OCI_PASSWORD", "p:w")
			g.tokens.Deny = "team/app"
		}, []string{"401", "the user u of OCI_USERNAME"}, 2, 1},
		{"anonymous, no right", func(_ *testing.T, _ *harness.Env, g *guarded) {
			g.tokens.Deny, g.tokens.Anonymous = "team/app", true
		}, []string{"401", "no credentials"}, 2, 1},
		{"path of others", config(`{"auths":{"HOST/team/ap":{"auth":"dTpwOnc="},"HOST/other":{"auth":"dTpwOnc="}}}`), []string{"401", "no credentials"}, 1, 1},
		{"403", answer(403, `{"errors":[{"code":"DENIED","message":"not yours"}]}`),
			[]string{"403", "DENIED: not yours"}, 1, 0},
		{"404", answer(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone"}]}`),
			[]string{"404", "MANIFEST_UNKNOWN: gone", "check the name and the tag"}, 1, 0},
		{"429", answer(429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"you have reached your pull rate limit"}]}`), []string{"429", "pull rate limit"}, 5, 0},
		{"not JSON", config(`{"auths":`), []string{"home/.docker/config.json", "is not JSON"}, 1, 0},
		{"bad base64", config(`{"auths":{"HOST":{"auth":"cDp3!"}}}`),
			[]string{"home/.docker/config.json", "base64", "127.0.0.1"}, 1, 0},
		{"helper that is not there", config(`{"credHelpers":{"HOST":"gone"}}`),
			[]string{"401", "docker-credential-gone", "not in PATH"}, 1, 1},
		{"helper that fails", with("bad", "exit 7"),
			[]string{"401", "docker-credential-bad", "exit status 7"}, 1, 1},
		{"helper that knows nothing", with("none",
			`echo "credentials not found in native keychain"; exit 1`),
			[]string{"401", "none were found"}, 1, 1},
		{"helper that sleeps", with("slow", "exec sleep 60"),
			[]string{"401", "docker-credential-slow", "no answer in 10s"}, 1, 1},
		{"helper that prints garbage", with("odd", `printf '\033[31m{'; echo oops >&2`),
			[]string{"401", "docker-credential-odd", "not JSON"}, 1, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			g := guard(t, e, at{})
			tt.prepare(t, e, g)
			r := refused(t, e, 5, append(tt.says, g.ref), g.ref, e.MountDir())
			for _, secret := range []string{"p:w", "unfit", "dTp", "oops"} {
				if strings.Contains(r.Stderr, secret) {
					t.Errorf("%q is in the message: %v", secret, r)
				}
			}
			if n, m := len(g.Log()), len(g.realm.Log()); n != tt.asked || m != tt.tokens {
				t.Errorf("%d requests to the registry and %d to the token server, want %d and %d",
					n, m, tt.asked, tt.tokens)
			}
		})
	}
}

// TestLoginPublic: a helper that is missing or fails does not keep a public image from being
// mounted.
func TestLoginPublic(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"missing": `{"credsStore":"gone"}`, "failing": `{"credsStore":"fails"}`,
		"knowing nothing": `{"credsStore":"none"}`, "none": ``,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			g := guard(t, e, at{})
			g.tokens.Anonymous = true
			helper(t, e, "fails", "exit 1")
			helper2 := `echo "credentials not found in native keychain"; exit 1`
			e.WriteFile("bin/docker-credential-none", []byte("#!/bin/sh\n"+helper2), 0o755)
			if config != "" {
				writeBelow(t, e, "home/.docker/config.json", []byte(config), 0o600)
			}
			dir := e.MountDir()
			r := e.Run(g.ref, dir).Want(t, 0)
			warned := strings.Contains(r.Stderr, "warning: docker-credential-")
			if want := name == "missing" || name == "failing"; warned != want {
				t.Errorf("warned: %v, want %v: %v", warned, want, r)
			}
			if got := string(e.Mounted(g.ref, dir).Read(loginFile(0))); got != loginText(0) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestLoginUsage: half of a login on the command line, and a password that is not there.
func TestLoginUsage(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref, dir := "localhost:1/a", e.MountDir()
	e.Run("--username", "u", ref, dir).Want(t, 1, "--password-stdin")
	e.Run("--password-stdin", ref, dir).Want(t, 1, "--username")
	e.Run("--username", "u:v", "--password-stdin", ref, dir).Want(t, 1, "':'")
	e.Run("--username", "u", "--password-stdin", ref, dir).Want(t, 1, "empty")
	e.Command("sh", "-c", `yes | head -c 100000 | "$0" "$@"`, e.Bin, "inspect", "--username", "u",
		"--password-stdin", ref).
		Wait(harness.Limit).Want(t, 1, "32768 bytes")
}

// TestLoginMany: however many readers wait, one token is asked for, also when the first reader is killed.
func TestLoginMany(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	g := guard(t, e, at{})
	writeBelow(t, e, "home/.docker/config.json", authFile(g.Host(), "u", "p:w"), 0o600)
	m := e.Mount(g.ref, "--prefetch=none")
	g.tokens.Revoke()
	g.Reset()
	read := e.Sh(`for f in "$1"/world/fs/[0-2]* "$1"/world/fs/3[01]; do cat "$f" & done; wait`, m.Dir)
	for i := range 32 {
		if !strings.Contains(read.Want(t, 0).Stdout, loginText(i)) {
			t.Errorf("no %q: %v", loginText(i), read)
		}
	}
	if n := len(g.tokens.Issued()); n != 2 {
		t.Errorf("%d tokens for 32 readers after the first had ended, want 2 in all", n)
	}
	g.tokens.Revoke()
	hold := faultreg.NewHold()
	g.realm.On(faultreg.Match{Count: 1}, hold.Fault())
	first := e.Command("cat", m.Path(loginFile(32)))
	harness.Eventually(t, time.Minute, "a request for a token", func() bool { return hold.Waiting() == 1 })
	others := e.Command("cat", m.Path(loginFile(33)), m.Path(loginFile(34)))
	first.Kill()
	hold.Release()
	if r := others.Wait(harness.Limit).Want(t, 0); r.Stdout != loginText(33)+loginText(34) {
		t.Errorf("the others: %v", r)
	}
	if n := len(g.tokens.Issued()); n > 4 {
		t.Errorf("%d tokens, want 3, or 4 when the first reader took its request with it", n)
	}
}

// TestLoginAhead: a mount outlives its tokens, which are renewed before their end: the registry
// never says 401 again.
func TestLoginAhead(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	g := guard(t, e, at{})
	g.tokens.Lasts = 2 * time.Second
	writeBelow(t, e, "home/.docker/config.json", authFile(g.Host(), "u", "p:w"), 0o600)
	m := e.Mount(g.ref, "--prefetch=none")
	start := time.Now()
	for i := 0; len(g.tokens.Issued()) < 4 && i < loginFiles; i++ {
		if got := string(m.Read(loginFile(i))); got != loginText(i) {
			t.Fatalf("file %d: got %q", i, got)
		}
		time.Sleep(300 * time.Millisecond)
	}
	issued, most := len(g.tokens.Issued()), 1+int(time.Since(start)/(1600*time.Millisecond))
	if issued < 4 || issued > most+1 {
		t.Errorf("%d tokens of 2 s in %v, want 4 at least and about %d", issued,
			time.Since(start).Round(time.Second), most)
	}
	if n := denials(g.Server); n != 1 {
		t.Errorf("%d times 401, want 1: at the start", n)
	}
}

// TestLoginRecovers: a mount whose login is refused reads again when the file has a right one,
// without a remount.
func TestLoginRecovers(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	g := guard(t, e, at{})
	writeBelow(t, e, "home/.docker/config.json", authFile(g.Host(), "u", "p:w"), 0o600)
	m := e.Mount(g.ref, "--prefetch=none")
	e.WriteFile("home/.docker/config.json", authFile(g.Host(), "u", "unfit"), 0o600)
	g.tokens.Revoke()
	if _, err := m.ReadErr(loginFile(0)); err == nil {
		t.Fatal("a file was read with a token that has ended and a wrong password")
	}
	if logs := e.Logs(); !strings.Contains(logs, "401") ||
		!strings.Contains(logs, "the user u of ") || strings.Contains(logs, "unfit") {
		t.Errorf("the log does not say which login was refused, or says too much:\n%s", logs)
	}
	e.WriteFile("home/.docker/config.json", authFile(g.Host(), "u", "p:w"), 0o600)
	harness.Eventually(t, time.Minute, "a read with the new login", func() bool {
		data, err := m.ReadErr(loginFile(0))
		return err == nil && string(data) == loginText(0)
	})
}

// TestLoginChallenges: registries that offer several ways to log in.
func TestLoginChallenges(t *testing.T) {
	t.Parallel()
	for name, add := range map[string]func(h http.Header){
		"basic before": func(h http.Header) {
			h["Www-Authenticate"] = append([]string{`Basic realm="x"`}, h["Www-Authenticate"]...)
		},
		"in one header": func(h http.Header) {
			h.Set("WWW-Authenticate", `Negotiate, Basic realm="x", `+h.Get("WWW-Authenticate"))
		},
		"basic behind":   func(h http.Header) { h.Add("WWW-Authenticate", `Basic realm="x"`) },
		"unknown before": func(h http.Header) { h["Www-Authenticate"] = append([]string{`Negotiate`}, h["Www-Authenticate"]...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			g := guard(t, e, at{})
			g.On(faultreg.Match{}, faultreg.Headers(func(h http.Header, status int) {
				if status == http.StatusUnauthorized {
					add(h)
				}
			}))
			e.Set("OCI_USERNAME", "u")
			e.Set("OCI_PASSWORD", "p:w")
			e.Run("inspect", g.ref).Want(t, 0)
			for _, x := range g.Log() {
				if strings.HasPrefix(x.Header.Get("Authorization"), "Basic") {
					t.Errorf("the password went to the registry, which takes tokens: %s %s", x.Method, x.Path)
				}
			}
		})
	}
}
