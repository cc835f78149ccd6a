package harness

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// plain is an Env without a binary, for what needs none.
func plain(t *testing.T, user string) *Env {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	e := &Env{Dir: dir, Bin: "none", t: t, user: lookup(t, user), vars: map[string]string{"PATH": systemPath}}
	e.MakeDir("home")
	return e
}

// TestDiff: each kind of difference is told, and none where there is none.
func TestDiff(t *testing.T) {
	want := []imgbuild.Want{
		{Path: "d", Kind: "dir", Mode: "0755"},
		{Path: "d/f\n", Kind: "file", Mode: "0640", Size: 5,
			SHA256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},
		{Path: "l", Kind: "symlink", Target: "gone"},
	}
	tests := []struct{ name, script, diff string }{
		{"equal", "true", ""},
		{"missing", "rm l", `"l" is missing`},
		{"more", "touch d/more", `"d/more" should not be there`},
		{"mode", "chmod 600 d/f*", `"d/f\n": mode 0600, want 0640`},
		{"dir mode", "chmod 700 d", `"d": mode 0700, want 0755`},
		{"content", "printf hallo >d/f*",
			`"d/f\n": content d3751d33f9cd5049c4af2b462735457e4d3baf130bcbb87f389e349fbaeb20b9, want 2cf24`},
		{"size", "printf o >>d/f*", `"d/f\n": size 6, want 5`},
		{"target", "ln -sfn other l", `"l": target "other", want "gone"`},
		{"kind", "rm l; mkdir l", `"l": kind dir, want symlink`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := plain(t, "")
			dir := e.MakeDir("tree")
			e.Sh(`cd "$1"; umask 022; mkdir d; printf hello >d/f$'\n'; chmod 640 d/f*; ln -s gone l; `+tt.script, dir).Want(t, 0)
			nodes, err := Walk(dir, true)
			if err != nil {
				t.Fatal(err)
			}
			diff := strings.Join(Diff(nodes, want), "; ")
			if diff != tt.diff && (tt.diff == "" || !strings.HasPrefix(diff, tt.diff)) {
				t.Errorf("got %q, want %q", diff, tt.diff)
			}
		})
	}
}

// TestDo: the function has the user's rights, the rest of the process keeps its own.
func TestDo(t *testing.T) {
	e := plain(t, User)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := e.Do(func() error {
		if _, err := os.Open(secret); !os.IsPermission(err) {
			return fmt.Errorf("open of root's file as a user: %v", err)
		}
		return os.WriteFile(e.Path("home/mine"), nil, 0o644)
	})
	if err != nil {
		t.Error(err)
	}
	st, err := os.Stat(e.Path("home/mine"))
	if err != nil || int(st.Sys().(*syscall.Stat_t).Uid) != e.UID() {
		t.Errorf("file made as user: %v, %v", st, err)
	}
	if _, err := os.Open(secret); err != nil || os.Geteuid() != 0 {
		t.Errorf("afterwards: uid %d, %v", os.Geteuid(), err)
	}
}

// TestCommand: exit codes, signals, output, user and prefix arrive.
func TestCommand(t *testing.T) {
	for _, name := range []string{"", User} {
		e := plain(t, name)
		r := e.Sh(`echo out; echo "$1" >&2; exit 3`, "err")
		if r.Want(t, 3, "ERR").Stdout != "out\n" {
			t.Errorf("got %v", r)
		}
		e.Prefix = []string{"prlimit", "--nofile=77"}
		if r := e.Sh(`id -u; ulimit -n; pwd`); r.Stdout != fmt.Sprintf("%d\n77\n%s\n", e.UID(),
			e.Path("home")) {
			t.Errorf("got %v", r)
		}
		p := e.Command("sleep", "100")
		p.Signal(syscall.SIGINT)
		if r := p.Wait(time.Minute); r.Code != -1 || r.Signal != syscall.SIGINT {
			t.Errorf("got %v", r)
		}
	}
}

// TestProcesses: a running file's processes, their memory and descriptors are seen.
func TestProcesses(t *testing.T) {
	e := plain(t, "")
	exe := e.Path("sleeper")
	if err := copyFile(exe, "/bin/sleep"); err != nil {
		t.Fatal(err)
	}
	p := e.Command(exe, "1000")
	defer p.Kill()
	var pid int
	Eventually(t, time.Minute, "sleeper", func() bool {
		if pids := Pids(exe); len(pids) == 1 {
			pid = pids[0]
		}
		return pid != 0 && State(pid) == "S" // it has started, and sleeps
	})
	if got := Cmdline(pid); len(got) != 2 || got[1] != "1000" || !Alive(pid) {
		t.Errorf("command line %q", got)
	}
	if rss := RSS(t, pid); rss < 100<<10 || rss > 100<<20 || Peak(t, pid) < rss || len(FDs(t, pid)) < 3 {
		t.Errorf("RSS %d, peak %d, descriptors %v", rss, Peak(t, pid), FDs(t, pid))
	}
	p.Kill()
	if Alive(pid) || len(Pids(exe)) != 0 {
		t.Errorf("after kill: state %q", State(pid))
	}
}

// TestMemoryLimit: what runs under it cannot have more.
func TestMemoryLimit(t *testing.T) {
	e := plain(t, "")
	e.Prefix = MemoryLimit(t, 50<<20)
	e.Sh(`head -c 10M /dev/zero | tail -c 10M >/dev/null`).Want(t, 0)
	if r := e.Sh(`head -c 200M /dev/zero | tail -c 200M >/dev/null`); r.Code == 0 {
		t.Errorf("200 MB fitted into 50: %v", r)
	}
}

// TestNetwork: a registry on an address that is not loopback is reached from inside only.
func TestNetwork(t *testing.T) {
	n := Network(t, "192.0.2.1")
	srv, err := faultreg.New(faultreg.Options{Addr: "192.0.2.1:0", Listen: n.Listen})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	e := plain(t, "")
	get := `import urllib.request,sys; print(urllib.request.urlopen(sys.argv[1]+"/v2/", timeout=10).status)`
	e.Prefix = n.Prefix()
	if r := e.Command("python3", "-c", get, srv.URL()).Wait(Limit).Want(t, 0); r.Stdout != "200\n" {
		t.Errorf("inside: %v", r)
	}
	client := http.Client{Timeout: time.Second}
	if resp, err := client.Get(srv.URL() + "/v2/"); err == nil {
		t.Errorf("outside: %v", resp.Status)
	}
}

// TestDisks: small file systems are small, the user's, and full when they are full.
func TestDisks(t *testing.T) {
	e := plain(t, User)
	for name, dir := range map[string]string{"tmpfs": e.Tmpfs("small", 5<<20),
		"ext4": e.LoopExt4("loop", 8<<20)} {
		t.Cleanup(func() { e.Prefix, e.user = nil, lookup(t, ""); e.Sh(`umount "$1"`, dir).Want(t, 0) })
		if len(MountLines(t, dir)) != 1 {
			t.Errorf("%s: not mounted", name)
		}
		e.Sh(`echo hi >"$1"/f`, dir).Want(t, 0)
		e.Sh(`head -c 9M /dev/zero >"$1"/f`, dir).Want(t, 1, "No space left")
	}
}

// TestUnescape holds mountinfo's escapes.
func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b\012c`: "/a b\nc", `/plain`: "/plain",
		`/end\`: `/end\`, `/b\134`: `/b\`} {
		if got := unescape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
