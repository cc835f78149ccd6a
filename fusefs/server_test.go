package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

func (m *mount) checkGone(t *testing.T, limit time.Duration) {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(limit):
		t.Fatalf("the server goes on for more than %v", limit)
	}
	if names, err := os.ReadDir(m.dir); err != nil || len(names) != 0 {
		t.Errorf("the mount point: %v, %v, want it empty", names, err)
	}
}

func TestUnmount(t *testing.T) {
	for name, unmount := range map[string]func(m *mount) error{
		"Unmount":        func(m *mount) error { return m.Unmount() },
		"Detach":         func(m *mount) error { return m.Detach() },
		"umount":         func(m *mount) error { return exec.Command("umount", m.dir).Run() },
		"umount -l":      func(m *mount) error { return exec.Command("umount", "-l", m.dir).Run() },
		"fusermount3 -u": func(m *mount) error { return exec.Command("fusermount3", "-u", m.dir).Run() },
	} {
		t.Run(name, func(t *testing.T) {
			m := testMount(t, newImage(t, file("a", "x")), Options{})
			m.read(t, "world/fs/a")
			if err := unmount(m); err != nil {
				t.Fatal(err)
			}
			m.checkGone(t, time.Minute)
			for range 2 {
				if err := errors.Join(m.Unmount(), m.Detach()); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
}

// TestUnmountBusy has a file open: a plain unmount says so soon, a lazy one leaves the file to its reader.
func TestUnmountBusy(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "content")), Options{})
	f, err := os.Open(m.path("world/fs/a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Now()
	if err := m.Unmount(); !errors.Is(err, mounts.ErrBusy) {
		t.Errorf("unmount: %v, want ErrBusy", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("unmount took %v to say that it is busy", took)
	}
	if err := m.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Unmount(), m.Detach()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if names, err := os.ReadDir(m.dir); err != nil || len(names) != 0 {
		t.Errorf("the mount point: %v, %v, want it empty", names, err)
	}
	buf := make([]byte, 100)
	if n, _ := f.Read(buf); string(buf[:n]) != "content" {
		t.Errorf("the open file: %q", buf[:n])
	}
	select {
	case <-m.Done():
		t.Error("the server ended while a file is open")
	default:
	}
	f.Close()
	m.checkGone(t, time.Minute)
}

// TestUnmountCovered leaves alone a foreign mount over the session's.
func TestUnmountCovered(t *testing.T) {
	m := testMount(t, newImage(t), Options{})
	if err := unix.Mount("tmpfs", m.dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	for name, unmount := range map[string]func() error{"Unmount": m.Unmount, "Detach": m.Detach} {
		if err := unmount(); !errors.Is(err, mounts.ErrBusy) {
			t.Errorf("%s: %v, want ErrBusy", name, err)
		}
	}
	if info := mountTop(t, m.dir); info != "tmpfs" {
		t.Errorf("on top is %q, want tmpfs", info)
	}
	if err := unix.Unmount(m.dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); err != nil {
		t.Error(err)
	}
	m.checkGone(t, time.Minute)
}

// TestUnmountStacked has an older mount moved over this one, so that the table lists the cover
// first: it is left alone. Once it is gone this mount is moved, and unmounted where it is then.
func TestUnmountStacked(t *testing.T) {
	base := t.TempDir() // private: what lies on a shared mount cannot be moved
	if err := errors.Join(unix.Mount("tmpfs", base, "tmpfs", 0, "size=1m"),
		unix.Mount("", base, "", unix.MS_PRIVATE, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(base, unix.MNT_DETACH) })
	older, dir, other := base+"/older", base+"/m", base+"/other"
	if err := errors.Join(os.Mkdir(older, 0o755), os.Mkdir(dir, 0o755), os.Mkdir(other, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("the-cover", older, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	im := newImage(t)
	s, err := mountAt(dir, im, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(older, dir, "", unix.MS_MOVE, ""); err != nil {
		t.Fatal(err)
	}
	for name, unmount := range map[string]func() error{
		"Unmount": s.Unmount, "Detach": s.Detach,
		"of another process": func() error { return mounts.Detach(s.Mounted(), true) },
	} {
		if err := unmount(); !errors.Is(err, mounts.ErrBusy) || !strings.Contains(err.Error(), "the-cover") {
			t.Errorf("%s: %v, want ErrBusy that names the cover", name, err)
		}
	}
	if got := mountTop(t, dir); got != "tmpfs" {
		t.Errorf("on top is %s", got)
	}
	if err := errors.Join(unix.Unmount(dir, 0), unix.Mount(dir, other, "", unix.MS_MOVE, "")); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Error("the mount that was moved is still there")
	}
}

// mountTop returns the type of the file system that is seen at dir.
func mountTop(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestStopReads ends a mount with readers: one waits and gets its bytes within the grace, one gets
// EIO after it. No new read waits, and cached bytes are still read.
func TestStopReads(t *testing.T) {
	t.Parallel()
	m := testMount(t, newImage(t, file("soon", "in time"), file("never", "too late"),
		file("next", "not begun"), file("here", "at hand")), Options{})
	soon := m.blobs.stall(t, "in time")
	m.blobs.stall(t, "too late")
	m.blobs.stall(t, "not begun")
	results := make(map[string]chan string)
	for _, name := range []string{"soon", "never"} {
		c := make(chan string, 1)
		results[name] = c
		go func() {
			b, err := os.ReadFile(m.path("world/fs/" + name))
			c <- fmt.Sprint(string(b), errors.Is(err, unix.EIO))
		}()
	}
	m.blobs.wait(t, 2)
	start := time.Now()
	const grace = 10 * time.Second // more than the reads below take
	drained := m.StopReads(grace)
	soon()
	if got := <-results["soon"]; got != "in timefalse" {
		t.Errorf("the reader whose bytes come in time: %s", got)
	}
	if _, err := os.ReadFile(m.path("world/fs/next")); !errors.Is(err, unix.EIO) ||
		time.Since(start) > grace {
		t.Errorf("a new reader: %v after %v, want EIO at once", err, time.Since(start))
	}
	if got := m.read(t, "world/fs/here"); got != "at hand" {
		t.Errorf("what is at hand: %q", got)
	}
	select {
	case <-drained:
		t.Error("drained while a reader waits")
	default:
	}
	if got := <-results["never"]; got != "true" {
		t.Errorf("the reader whose bytes do not come: %s", got)
	}
	if took := time.Since(start); took < grace {
		t.Errorf("it got EIO after %v, want the grace, %v", took, grace)
	}
	select {
	case <-drained:
	case <-time.After(time.Minute):
		t.Error("not drained")
	}
	if m.log.with("world/fs/never", "the mount is ending") == nil {
		t.Error("no log line")
	}
}

// TestAbort has the kernel drop the connection under a reader that waits: no fetch goes on without
// a reader.
func TestAbort(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "content"), file("b", "other")), Options{})
	m.blobs.stall(t, "content")
	errs := make(chan error, 1)
	go func() { _, err := os.ReadFile(m.path("world/fs/a")); errs <- err }()
	m.blobs.wait(t, 1)
	if err := unix.Unmount(m.dir, unix.MNT_FORCE); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	if err := <-errs; err == nil {
		t.Error("the reader has bytes that nobody gave it")
	}
	m.blobs.wait(t, 0)
	select {
	case <-m.Done():
	case <-time.After(time.Minute):
		t.Fatal("the server goes on")
	}
	unix.Unmount(m.dir, unix.MNT_DETACH)
}

// TestLeaks mounts, reads, fails, waits and unmounts: nothing stays behind.
func TestLeaks(t *testing.T) {
	round := func() {
		m := testMount(t, newImage(t, file("a", "content"), file("bad", "fails"),
			file("slow", "at last")), Options{})
		m.read(t, "world/fs/a")
		m.blobs.change("fails", func(b *fakeBlob) { b.fail = errors.New("down") })
		os.ReadFile(m.path("world/fs/bad"))
		release := m.blobs.stall(t, "at last")
		done := make(chan struct{})
		go func() { os.ReadFile(m.path("world/fs/slow")); close(done) }()
		m.blobs.wait(t, 1)
		release()
		<-done
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
		m.Wait()
	}
	round() // what is made once stays
	goroutines, files := runtime.NumGoroutine(), countFiles(t)
	for range 5 {
		round()
	}
	eventually(t, 5*time.Second, "as many goroutines as before",
		func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, 5*time.Second, "as many open files as before",
		func() bool { return countFiles(t) <= files })
}

func countFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// TestReadAllocations bounds what a read costs whose blob is at hand.
func TestReadAllocations(t *testing.T) {
	im := newImage(t, file("a", strings.Repeat("x", 4096)))
	blobs := &handy{im.blobs.blobs[mustBlob(t, im, "world/fs/a")]}
	fs := New(im.ix, blobs, Options{})
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: uint64(im.find(t, "world/fs/a"))}}
	buf := make([]byte, 4096)
	goroutines := runtime.NumGoroutine()
	allocs := testing.AllocsPerRun(1000, func() {
		if r, code := fs.Read(nil, in, buf); !code.Ok() || r.Size() != len(buf) {
			t.Errorf("read: %v", code)
		}
	})
	if allocs > 3 {
		t.Errorf("%v allocations a read, want at most 3", allocs)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
}

// handy is one blob that is always at hand, as an open file of a cache is.
type handy struct{ blob *fakeBlob }

func (h *handy) Open(context.Context, pfimg.Digest, int64) (File, error) { return h, nil }
func (h *handy) Size() int64                                             { return int64(len(h.blob.content)) }
func (h *handy) ReadAt(p []byte, off int64) (int,
	error) {
	return copy(p, h.blob.content[off:]), nil
}
func (h *handy) Close() error { return nil }

// mustBlob returns the digest of a file's content.
func mustBlob(t *testing.T, im *image, path string) pfimg.Digest {
	t.Helper()
	d, _, ok := im.ix.Blob(im.find(t, path))
	if !ok {
		t.Fatalf("%s has no blob", path)
	}
	return d
}
