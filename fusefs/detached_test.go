package fusefs

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// detachedWithin reports whether Detached is closed within limit.
func (m *mount) detachedWithin(limit time.Duration) bool {
	select {
	case <-m.Detached():
		return true
	case <-time.After(limit):
		return false
	}
}

// TestDetached: a mount that was detached while a file is open has left; one of which a copy is bound
// elsewhere, is below an overlay or in another process's mount namespace has not, until that is
// gone.
func TestDetached(t *testing.T) {
	open := func(t *testing.T, m *mount) {
		f, err := os.Open(m.path("world/fs/a"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
	detach := func(t *testing.T, m *mount) {
		if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("file open", func(t *testing.T) {
		t.Parallel()
		m := testMount(t, newImage(t, file("a", "x")), Options{})
		open(t, m)
		if m.detachedWithin(time.Second) {
			t.Fatal("detached before it was")
		}
		detach(t, m)
		if !m.detachedWithin(time.Minute) {
			t.Error("not detached")
		}
	})
	t.Run("bound elsewhere", func(t *testing.T) {
		t.Parallel()
		m := testMount(t, newImage(t, file("a", "x")), Options{})
		open(t, m)
		other := t.TempDir()
		if err := unix.Mount(m.path("world"), other, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(other, unix.MNT_DETACH) })
		detach(t, m)
		if m.detachedWithin(time.Second) {
			t.Fatal("detached although it is bound elsewhere")
		}
		if err := unix.Unmount(other, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if !m.detachedWithin(time.Minute) {
			t.Error("not detached")
		}
	})
	t.Run("copied", func(t *testing.T) { // not in parallel: it copies every mount there is
		m := testMount(t, newImage(t, file("a", "x")), Options{})
		cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
			"echo ready; exec sleep 600")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := func() { cmd.Process.Kill(); cmd.Wait() }
		t.Cleanup(end)
		if _, err := out.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(m.dir, 0); err != nil {
			t.Fatal(err)
		}
		if m.detachedWithin(time.Second) {
			t.Fatal("detached although another namespace has a copy")
		}
		for until := time.Now().Add(time.Minute); m.log.with("a copy of the mount",
			m.dir) == nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("nothing in the log says so")
			}
		}
		end()
		m.checkGone(t, time.Minute)
	})
}
