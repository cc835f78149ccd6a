package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pfmount/pfmount/fetch/safedir/safedirtest"
)

func TestStateDirBy(t *testing.T) {
	none := 1 << 30 // no /run/user of such a user
	for _, tt := range []struct {
		uid  int
		env  string
		want string
	}{
		{none, "XDG_RUNTIME_DIR=/r\x00TMPDIR=/t\x00", "/r/pfmount"},
		{0, "XDG_RUNTIME_DIR=/r\x00", "/r/pfmount"},
		{0, "", "/run/pfmount"},
		{0, "XDG_RUNTIME_DIR=relative\x00", "/run/pfmount"},
		{none, "A=b\x00TMPDIR=/t\x00", "/t/pfmount-1073741824"},
		{none, "NOT_XDG_RUNTIME_DIR=/r\x00XDG_RUNTIME_DIR\x00", "/tmp/pfmount-1073741824"},
	} {
		if got := stateDirBy(tt.uid, environ([]byte(tt.env))); got != tt.want {
			t.Errorf("%d, %q: got %q, want %q", tt.uid, tt.env, got, tt.want)
		}
	}
}

// TestRemoveSocket has a second mount at the same place put its socket where the first one's was:
// the end of the first leaves it alone.
func TestRemoveSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "sock")
	listen := func() *stateServer {
		s, l, err := listenState(filepath.Dir(path), filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); s.dir.Close() })
		return s
	}
	first, second := listen(), listen()
	first.removeSocket()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the second socket is gone: %v", err)
	}
	second.removeSocket()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the second socket is still there: %v", err)
	}
}

func ownedBy(fi os.FileInfo, uid int) bool { return int(fi.Sys().(*syscall.Stat_t).Uid) == uid }

// TestStateSocket: the socket is its user's alone from the start, under any umask, and takes the
// place of what a dead process left, whatever that is.
func TestStateSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30)) // longer than a socket's path may be
	defer syscall.Umask(syscall.Umask(0))
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink("/etc/passwd", dir+"/s")); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	s, l, err := listenState(dir, "s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer s.dir.Close()
	fi, err := os.Lstat(dir + "/s")
	if err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if after, err := os.Stat("/etc/passwd"); err != nil || after.Mode() != before.Mode() {
		t.Errorf("the target of what was left: %v, %v", after.Mode(), err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, _, err := listenState(dir, "t"); err == nil {
		t.Error("a socket in a folder that others may write to")
	}
}

// TestForeignState: root neither makes nor removes nor asks a socket where another user's symlink
// leads.
func TestForeignState(t *testing.T) {
	if !safedirtest.CanChown(t) {
		return
	}
	link, folder := safedirtest.Link(t)
	s, l, err := listenState(folder, "s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer s.dir.Close()
	if _, _, err := listenState(link, "t"); err == nil {
		t.Error("made through the symlink")
	}
	for _, uid := range []int{0, safedirtest.Stranger} { // whose mount it is said to be
		removeLeftover(filepath.Join(link, "s"), uid)
		if _, err := openSocket(link, "s", uid); err == nil {
			t.Errorf("opened through the symlink for user %d", uid)
		}
	}
	// His own folder, and in it a symlink to root's socket.
	own := t.TempDir()
	if err := errors.Join(os.Symlink(folder+"/s", own+"/s"), os.Chown(own, safedirtest.Stranger, safedirtest.Stranger)); err != nil {
		t.Fatal(err)
	}
	if _, err := openSocket(own, "s", safedirtest.Stranger); err == nil {
		t.Error("a symlink to root's socket was opened")
	}
	if names, err := os.ReadDir(folder); err != nil || len(names) != 1 {
		t.Errorf("left there: %v, %v", names, err)
	}
	removeLeftover(filepath.Join(folder, "s"), 0)
	if names, err := os.ReadDir(folder); err != nil || len(names) != 0 {
		t.Errorf("a leftover of root's own stays: %v, %v", names, err)
	}
}

// TestForeignRuntimeDir: root does not look for its sockets where another user's symlink leads.
func TestForeignRuntimeDir(t *testing.T) {
	if !safedirtest.CanChown(t) {
		return
	}
	link, _ := safedirtest.Link(t)
	if got := stateDirBy(0, environ([]byte("XDG_RUNTIME_DIR="+link+"\x00"))); got != "/run/pfmount" {
		t.Errorf("the sockets of root's mount are looked for in %s", got)
	}
}
