package fusefs

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

func TestShows(t *testing.T) {
	for name, tt := range map[string]struct {
		table string
		want  bool
	}{
		"there":                {"36 25 0:44 / /mnt/a ro - fuse.pfmount img rw\n", true},
		"bound elsewhere":      {"36 25 0:44 /world/fs /mnt/b ro shared:5 - fuse.pfmount img rw\n", true},
		"another device":       {"36 25 0:45 / /mnt/a ro - fuse.pfmount img rw\n", false},
		"below an overlay":     {"40 25 0:50 / /merged rw - overlay overlay rw,lowerdir=/mnt/a\\040b/world/fs,upperdir=/u\n", true},
		"not below an overlay": {"40 25 0:50 / /merged rw - overlay overlay rw,lowerdir=/mnt/x\n", false},
		"named by no overlay":  {"40 25 0:50 / /y rw - ext4 /mnt/a\\040b rw\n", false},
		"no table":             {"rubbish\n36 25\n", false},
	} {
		table, err := mounts.Parse(strings.NewReader(tt.table))
		if got := shows(table, &mounts.Mount{Dev: "0:44", Point: "/mnt/a b"}); err != nil || got != tt.want {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, tt.want)
		}
	}
}

// left reports whether Left is closed within limit.
func (m *mount) hasLeft(limit time.Duration) bool {
	select {
	case <-m.Left():
		return true
	case <-time.After(limit):
		return false
	}
}

// TestLeft: a mount that was detached while a file is open has left; one of which a copy is bound elsewhere, is below an
// overlay or in another process's mount namespace has not, until that is gone.
func TestLeft(t *testing.T) {
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
		if m.hasLeft(3 * settleTime) {
			t.Fatal("it left before it was detached")
		}
		detach(t, m)
		if !m.hasLeft(time.Minute) {
			t.Error("it has not left")
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
		if m.hasLeft(3 * settleTime) {
			t.Fatal("it left although it is bound elsewhere")
		}
		if err := unix.Unmount(other, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if !m.hasLeft(time.Minute) {
			t.Error("it has not left")
		}
	})
	t.Run("copied", func(t *testing.T) { // not in parallel: it copies every mount there is
		m := testMount(t, newImage(t, file("a", "x")), Options{})
		cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 600")
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
		if m.hasLeft(3 * settleTime) {
			t.Fatal("it left although another namespace has a copy")
		}
		for until := time.Now().Add(time.Minute); m.log.with("a copy of the mount", m.dir) == nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("nothing in the log says so")
			}
		}
		end()
		m.checkGone(t, time.Minute)
	})
}
