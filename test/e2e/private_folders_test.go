package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// secret is a file that only root may touch.
type secret struct {
	t    *testing.T
	path string
}

const secretText = "root's own\n"

// newSecret makes one below an Env's folder, of a mode that no code of the product gives.
func newSecret(t *testing.T, e *harness.Env, name string) secret {
	t.Helper()
	s := secret{t, e.Path(name)}
	if err := os.WriteFile(s.path, []byte(secretText), 0o640); err != nil {
		t.Fatal(err)
	}
	return s
}

// untouched fails the test unless bytes, owner and mode are as they were.
func (s secret) untouched() {
	s.t.Helper()
	text, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	fi, err := os.Lstat(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	if string(text) != secretText || fi.Mode() != 0o640 || st.Uid != 0 || st.Gid != 0 {
		s.t.Errorf("root's file: %q, %v, owner %d:%d", text, fi.Mode(), st.Uid, st.Gid)
	}
}

// ownPlaces is a mount namespace with empty folders where root has its log, cache and sockets
// without an environment.
func ownPlaces() []string {
	return private(`for d in /var/log /var/cache /run; do mount -t tmpfs -o mode=755 none $d; done`)
}

// TestRootLogForeign: a log of root's in a folder of another user, who has put a symlink there, is
// refused before anything is mounted, and what the symlink leads to stays as it was.
func TestRootLogForeign(t *testing.T) {
	t.Parallel()
	e, u := harness.New(t, ""), harness.New(t, harness.User)
	ref := e.Push(harness.Fixture(t, "minimal"))
	s := newSecret(t, e, "secret")
	theirs := u.MakeDir("theirs")
	u.Sh(`cd "$1"; ln -s "$2" file; ln -s "${2%/*}" folder; mkdir d; touch d/log; mkfifo pipe`,
		theirs, s.path).Want(t, 0)
	names := []string{"file", "folder/secret", "folder/new", "d/log", "new", "new/new", "pipe"}
	for _, name := range names {
		dir := e.MountDir()
		r := e.Run("--log-file", filepath.Join(theirs, name), ref, dir).
			Want(t, 1, theirs, fmt.Sprintf("user %d", u.UID()), "--log-file")
		if lines := harness.MountLines(t, dir); len(lines) > 0 {
			t.Errorf("mounted all the same: %v", r)
		}
		e.Run("-f", "--log-file", filepath.Join(theirs, name), ref, dir).Want(t, 1, theirs)
	}
	s.untouched()
	if _, err := os.Lstat(e.Path("new")); !os.IsNotExist(err) {
		t.Errorf("made through the symlink: %v", err)
	}
}

// TestRootForeignVariables: the folders of another user in the environment of root (sudo -E, su -m)
// count as unset, with a warning: a mount works, and nothing is made, written or removed where they
// lead.
func TestRootForeignVariables(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"} {
		for _, way := range []string{"folder", "symlink"} {
			t.Run(name+" "+way, func(t *testing.T) {
				t.Parallel()
				e, u := harness.New(t, ""), harness.New(t, harness.User)
				ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
				target := e.MakeDir("target") // root's
				e.MakeDir("target/pfmount")
				e.Sh(`mkdir -p "$1"/.local/state/pfmount`, target).Want(t, 0)
				if name == "HOME" {
					e.Unset("XDG_STATE_HOME")
					e.Unset("XDG_CACHE_HOME")
				}
				foreign := u.MakeDir("foreign")
				if way == "symlink" { // the folder itself is root's, but who owns the symlink says which
					foreign += "/link"
					u.Sh(`ln -s "$2" "$1"`, foreign, target).Want(t, 0)
				} else {
					u.Sh(`cd "$1"; mkdir .local; ln -s "$2"/.local/state .local/state; ln -s "$2" .cache`,
						foreign, target).Want(t, 0)
				}
				e.Set(name, foreign)
				e.Prefix = ownPlaces()
				list := `find "$tree" "$foreign/" -printf '%p %U %m %l\n' | sort`
				r := e.Sh(`bin=$1 ref=$2 dir=$3 tree=$4 foreign=$5; before=$(`+list+`)
"$bin" "$ref" "$dir"; test -s "$dir/manifest.json"; "$bin" status "$dir"
during=$(`+list+`)
[ "$before" = "$during" ] || { diff <(echo "$before") <(echo "$during") >&2 || true; exit 9; }
`+wayOut, e.Bin, ref, dir, target, foreign).Want(t, 0, "warning", name)
				if !strings.Contains(r.Stdout, "process") {
					t.Errorf("status does not find the process: %v", r)
				}
			})
		}
	}
}

// TestRootLogRotated: a log of root's in a folder that all may write to is rotated, and no other
// user can divert it, whatever is put in its place meanwhile.
func TestRootLogRotated(t *testing.T) {
	t.Parallel()
	e, u := harness.New(t, ""), harness.New(t, harness.User)
	ref := e.Push(harness.Fixture(t, "minimal"))
	s := newSecret(t, e, "secret")
	shared := e.MakeDir("shared")
	if err := os.Chmod(shared, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	planter := u.Command("env", "python3", "-c", `
import os, sys
while True:
    try: os.symlink(sys.argv[1], sys.argv[2])
    except OSError: continue
    try: os.unlink(sys.argv[2])
    except OSError: pass
`, s.path, shared+"/log")
	defer planter.Kill()
	full := strings.Repeat(strings.Repeat("x", 1023)+"\n", 10<<10) // 10 MiB, as far as a log grows
	for range 10 {
		os.Remove(shared + "/log.old")
		os.Remove(shared + "/log")
		writeNew(t, shared+"/log", full)
		e.Mount(ref, "--log-file", shared+"/log").Unmount()
		s.untouched()
		fi, err := os.Lstat(shared + "/log.old")
		if err != nil || fi.Mode() != 0o600 || fi.Size() < int64(len(full)) {
			t.Fatalf("the log before: %v, %v", fi, err)
		}
	}
}

// writeNew makes a file as soon as nothing else is in its place.
func writeNew(t *testing.T, path, text string) {
	t.Helper()
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if os.IsExist(err) {
			continue
		}
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

// TestLogRotated: a full log becomes FILE.old and a new one is begun; mounts that share a log lose
// no line.
func TestLogRotated(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref := e.Push(harness.Fixture(t, "minimal"))
		one := e.Mount(ref, "--log-file", e.Path("state/log"))
		two := e.Mount(ref, "--log-file", e.Path("state/log"))
		e.Sh(`head -c $((10 * 1024 * 1024)) /dev/zero | tr '\0' x | fold -w 63 >>"$1"; echo >>"$1"`,
			e.Path("state/log")).Want(t, 0)
		one.Unmount()
		two.Unmount()
		r := e.Sh(`cd "$1"; ls
for line in msg=unmounted msg=mounted '^x*$'; do cat log.old log | grep -c "$line"; done
grep -c msg= log; stat -c '%a %u' log log.old | sort -u`, e.Path("state")).Want(t, 0)
		want := fmt.Sprintf("log\nlog.old\n2\n2\n%d\n2\n600 %d\n", 10*1024*1024/63+1, e.UID())
		if r.Stdout != want {
			t.Errorf("got %v, want %q", r, want)
		}
	})
}

// TestNoLogFile: what is not a regular file of the user's own is no log, and a FIFO is not waited
// for.
func TestNoLogFile(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, place := e.Push(harness.Fixture(t, "minimal")), e.MakeDir("place")
		e.Sh(`cd "$1"; mkfifo fifo; mkdir dir; touch one; ln one two
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'`, place).Want(t, 0)
		for name, word := range map[string]string{
			"fifo": "FIFO", "dir": "directory", "sock": "socket", "one": "hard links", "/dev/null": "device",
		} {
			if !filepath.IsAbs(name) {
				name = filepath.Join(place, name)
			}
			e.Run("--log-file", name, ref, e.MountDir()).Want(t, 1, name, word, "--log-file")
		}
		os.Remove(filepath.Join(place, "sock"))
	})
}

// TestLogPlaces: a log may stand wherever its user can put it: in a folder that is not made yet, in
// /tmp, by a relative name, in a group's folder, behind symlinks.
func TestLogPlaces(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, tmp := e.Push(harness.Fixture(t, "minimal")), e.MakeDir("public")
		e.Unset("XDG_STATE_HOME")
		if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		e.Sh(`cd; mkdir real group; chmod 775 group
ln -s real link; ln -s ../real/behind real/log; ln -s "$PWD/link/log" "$1/log"`, tmp).Want(t, 0)
		home := e.Path("home")
		for given, file := range map[string]string{
			"":         home + "/.local/state/pfmount/*.log",
			"relative": home + "/relative", "new/er/log": home + "/new/er/log",
			tmp + "/mine": tmp + "/mine", tmp + "/new/log": tmp + "/new/log", "link/x": home + "/real/x",
			"group/log": home + "/group/log", tmp + "/log": home + "/real/behind",
		} {
			var option []string
			if given != "" {
				option = []string{"--log-file", given}
			}
			e.Mount(ref, option...).Unmount()
			e.Sh(`grep -q msg=mounted $1`, file).Want(t, 0)
		}
	})
}

// TestRootCacheForeign: a cache of root's below a folder of another user, who has put a symlink
// there, is refused, and nothing is made where it leads.
func TestRootCacheForeign(t *testing.T) {
	t.Parallel()
	e, u := harness.New(t, ""), harness.New(t, harness.User)
	ref, target := e.Push(harness.Fixture(t, "minimal")), e.MakeDir("target")
	theirs := u.MakeDir("theirs")
	u.Sh(`ln -s "$2" "$1"/link`, theirs, target).Want(t, 0)
	e.Run("--cache-dir", theirs+"/link/a/b", ref, e.MountDir()).Want(t, 1, theirs, "--cache-dir")
	e.Run("warm", "--cache-dir", theirs+"/link/a", ref).Want(t, 1, theirs)
	if names, err := os.ReadDir(target); err != nil || len(names) > 0 {
		t.Errorf("made through the symlink: %v, %v", names, err)
	}
}

// TestRootAsks: root asks the process of another user's mount, and nothing else that the user puts
// in its place.
func TestRootAsks(t *testing.T) {
	t.Parallel()
	e, u := harness.New(t, ""), harness.New(t, harness.User)
	m := u.Mount(u.Push(harness.Fixture(t, "minimal")))
	if r := e.Run("status", m.Dir).Want(t, 0); !strings.Contains(r.Stdout, "process") {
		t.Errorf("the state of a user's mount: %v", r)
	}
	l, err := net.Listen("unix", e.Path("only"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan struct{})
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
			close(asked)
		}
	}()
	names, err := filepath.Glob(u.Path("run/pfmount/*.sock"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v, %v", names, err)
	}
	u.Sh(`mv "$1" "$1".moved; ln -s "$2" "$1"`, names[0], e.Path("only")).Want(t, 0)
	r := e.Run("status", m.Dir).Want(t, 0)
	select {
	case <-asked:
		t.Error("root's own socket was asked")
	default:
	}
	if !strings.Contains(r.Stdout, "does not tell") {
		t.Errorf("status: %v", r)
	}
	u.Sh(`mv -f "$1".moved "$1"`, names[0]).Want(t, 0)
}
