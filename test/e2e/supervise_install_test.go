package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// repoDir is the product's folder.
func repoDir(t *testing.T) string {
	return filepath.Join(harness.FixtureDir(t, "layout"), "../../../..")
}

// install runs make install with the Env's binary, and gives the folder.
func install(t *testing.T, e *harness.Env, settings ...string) string {
	t.Helper()
	stage := e.Path("stage")
	args := append([]string{"-s", "-C", repoDir(t), "-o", "build", "install", "BIN=" + e.Bin,
		"DESTDIR=" + stage}, settings...)
	if out, err := exec.Command("make", args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	return stage
}

// TestInstall: make install puts everything where its readers look, complete and well formed, and
// its links lead to the program.
func TestInstall(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	stage := install(t, e, "PREFIX=/opt/pf")
	var got []string
	err := filepath.WalkDir(stage, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, strings.TrimPrefix(path, stage))
			if info, err := d.Info(); err != nil ||
				info.Mode().IsRegular() && info.Mode().Perm()&0o444 != 0o444 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
		return err
	})
	want := []string{"/opt/pf/bin/pfmount", "/opt/pf/lib/systemd/system/pfmount@.service",
		"/opt/pf/lib/systemd/user/pfmount@.service",
		"/opt/pf/share/bash-completion/completions/pfmount",
		"/opt/pf/share/doc/pfmount/examples/mnt-sess.automount",
		"/opt/pf/share/doc/pfmount/examples/mnt-sess.mount",
		"/opt/pf/share/fish/vendor_completions.d/pfmount.fish",
		"/opt/pf/share/man/man1/pfmount.1", "/opt/pf/share/zsh/site-functions/_pfmount", "/sbin/mount.fuse.pfmount", "/sbin/mount.pfmount"}
	if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("installed %q, %v, want %q", got, err, want)
	}
	for _, name := range []string{"mount.fuse.pfmount", "mount.pfmount"} {
		if to, err := os.Readlink(stage + "/sbin/" + name); to != "/opt/pf/bin/pfmount" {
			t.Errorf("%s leads to %q, %v", name, to, err)
		}
	}
	// An install into a home has no business in /sbin.
	install(t, e, "DESTDIR=", "PREFIX="+e.Path("home/.local"), "SBINDIR=")
	e.Sh(`cd "$HOME/.local" && cp share/systemd/user/pfmount@.service "$HOME/pfmount@x.service" && systemd-analyze --user --man=no verify "$HOME/pfmount@x.service" && test ! -e lib`).Want(t, 0)

	e.Set("MANPATH", stage+"/opt/pf/share/man")
	e.Sh(`cd "$1/opt/pf"
mkdir "$HOME/units"
for of in system user; do
  sed "s,=/opt,=$1/opt," lib/systemd/$of/pfmount@.service >"$HOME/units/pfmount@x.service"
  systemd-analyze --$of verify "$HOME/units/pfmount@x.service"
done
for example in share/doc/pfmount/examples/*; do systemd-analyze verify "$example"; done
bash -n share/bash-completion/completions/pfmount
zsh -n share/zsh/site-functions/_pfmount
fish -n share/fish/vendor_completions.d/pfmount.fish
man --warnings -E UTF-8 -l share/man/man1/pfmount.1 >"$HOME/page"
groff -ww -man -Tutf8 -z share/man/man1/pfmount.1
man pfmount | grep -q 'FSTAB AND MOUNT'
lexgrog share/man/man1/pfmount.1 | grep -q 'pfmount - mount ProcessFork'
test "$(wc -l <"$HOME/page")" -gt 200`, stage).Want(t, 0)
}

// typed types into an interactive shell on a terminal, and waits for what completion makes of it.
const typed = `
import os, pty, select, sys, time
setup, keys, want, argv = sys.argv[1], sys.argv[2], sys.argv[3].encode(), sys.argv[4:]
pid, fd = pty.fork()
if pid == 0:
    os.environ['TERM'] = 'dumb'
    os.execvp(argv[0], argv)
seen = b''
def until(text):
    global seen
    end = time.time() + 60
    while text not in seen and time.time() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try: seen += os.read(fd, 4096)
            except OSError: return False
    return text in seen
os.write(fd, (setup + "\necho SET''UP\n").encode())
ok = until(b'SETUP')
seen = b''
os.write(fd, keys.encode())
ok = ok and until(want)
os.close(fd)
os.waitpid(pid, 0)
sys.stdout.write(repr(seen))
sys.exit(0 if ok else 1)
`

// TestTyped: the installed completions as a person meets them, in each shell. The registry is gone
// by then: nothing is asked of it.
func TestTyped(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	stage := install(t, e) + "/usr/local"
	share := stage + "/share"
	odd := e.MakeDir("m/a b")
	ref := e.Push(harness.Fixture(t, "minimal"))
	e.Run(ref, odd).Want(t, 0)
	e.Run("pull", ref, "oci-layout:"+e.Path("lay")+":v1").Want(t, 0)
	e.Set("PATH", stage+"/bin:"+os.Getenv("PATH"))
	bash := "PS1='> '; source " + share + "/bash-completion/completions/pfmount"
	zsh := "PS1='> '; fpath=(" + share + "/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D"
	name, tag, _ := strings.Cut(ref, "/")
	for _, keys := range []struct{ typed, want string }{
		{"pfmount umo\t", "umount "},
		{"pfmount cache pru\t", "prune "},
		{"pfmount --cache-di\t", "--cache-dir"},
		{"pfmount -o noexec,allow\t", "noexec,allow-other"},
		{"pfmount --cache-verify=al\t", "always"},
		{"pfmount oci-layout:" + e.Dir + "/ca\t", "cache/"},
		{"pfmount oci-layout:" + e.Dir + "/lay:\t", "lay:v1"},
		{"pfmount ls " + name + "\t", tag},
		{"pfmount localhost:5000/x " + e.Dir + "/ca\t", "cache/"},
		{"pfmount ls --key-file " + e.Dir + "/pf\t", e.Dir + "/pfmount"},
		{"pfmount umount " + e.Dir + "\t", `m/a\ b`},
		{"pfmount status " + e.Dir + "/m\t", `m/a\ b`},
	} {
		for _, shell := range [][]string{{bash, "bash", "--norc", "-i"}, {zsh, "zsh", "-f", "-i"}} {
			r := e.Command(append([]string{"python3", "-c", typed, shell[0], keys.typed, keys.want},
				shell[1:]...)...).Wait(harness.Limit)
			if r.Code != 0 || r.Stderr != "" {
				t.Errorf("%s: %q does not become %q: %s%s", shell[1], keys.typed, keys.want,
					r.Stdout, r.Stderr)
			}
		}
		line, _, _ := strings.Cut(keys.typed, "\t")
		r := e.Sh(`fish -N -c "source \$argv[1]; complete -C \$argv[2]" "$1/fish/vendor_completions.d/pfmount.fish" "$2"`, share, line).Want(t, 0)
		if want := strings.NewReplacer(`\`,
			"").Replace(strings.TrimSpace(keys.want)); !strings.Contains(r.Stdout, want) || r.Stderr != "" {
			t.Errorf("fish: %q does not become %q: %v", line, want, r)
		}
	}
	e.Mounted(ref, odd).Unmount()
}
