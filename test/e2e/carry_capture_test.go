package e2e

import (
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// nothingSent fails the test when a request reached the registry.
func nothingSent(t *testing.T, e *harness.Env) {
	t.Helper()
	if n := e.Registry().Count(faultreg.Match{}); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}

// TestCaptureUnreadable has a file, then a folder, that an ordinary user may not read: an error
// that names it.
func TestCaptureUnreadable(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sub/secret", "sub"} {
		e := harness.New(t, harness.User)
		e.MakeDir("home/p")
		e.MakeDir("home/p/sub")
		e.WriteFile("home/p/sub/secret", []byte("x"), 0o600)
		e.Sh(`chmod 0 "$1"`, e.Path("home/p/"+name)).Want(t, 0)
		e.Run("push", e.Path("home/p"), e.Registry().Ref("team/new", "v1")).Want(t, 1,
			e.Path("home/p/"+name), "permission denied")
		nothingSent(t, e)
		e.Sh(`chmod 700 "$1"`, e.Path("home/p/"+name)).Want(t, 0)
		e.Run("push", e.Path("home/p"), e.Registry().Ref("team/new", "v1")).Want(t, 0)
	}
}

// TestCaptureChanging captures a log that a program writes to all the time: an error that names it.
func TestCaptureChanging(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	e.MakeDir("home/p")
	log := e.WriteFile("home/p/growing.log", []byte(strings.Repeat("line\n", 8<<20)), 0o600)
	writer := e.Command("bash", "-c", `while :; do echo more >> "$1"; done`, "bash", log)
	defer writer.Kill()
	e.Run("push", e.Path("home/p"), e.Registry().Ref("team/new", "v1")).Want(t, 1, log,
		"changed while it was read")
	nothingSent(t, e)
}

// TestCaptureSpecial has what no image holds: it is left out with a warning that names it. Symlinks
// that lead in a circle are recorded, not followed.
func TestCaptureSpecial(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		e.MakeDir("home/p")
		e.Sh(`cd "$1"; echo text > file; chmod 644 file; mkfifo pipe; ln -s b a; ln -s a b; ln -s . self
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
test "$(id -u)" != 0 || mknod null c 1 3`, e.Path("home/p")).Want(t, 0)
		special := []string{"pipe", "sock"}
		if e.UID() == 0 {
			special = append(special, "null")
		}
		dst := e.Registry().Ref("team/new", "v1")
		r := e.Run("push", e.Path("home/p"), dst).Want(t, 0)
		for _, name := range special {
			if !strings.Contains(r.Stderr, "left out") ||
				!strings.Contains(r.Stderr, e.Path("home/p/"+name)) {
				t.Errorf("no warning names %s: %v", name, r)
			}
		}
		e.Mount(dst).Compare("world/fs", []imgbuild.Want{
			{Path: "file", Kind: "file", Mode: "0644", Size: 5, SHA256: harness.SHA256([]byte("text\n"))},
			{Path: "a", Kind: "symlink", Target: "b"},
			{Path: "b", Kind: "symlink", Target: "a"},
			{Path: "self", Kind: "symlink", Target: "."},
		})
		e.Sh(`rm "$1/sock"`, e.Path("home/p")).Want(t, 0)
	})
}
