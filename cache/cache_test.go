package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// helpers are the other processes of the tests: this binary, started again with helperEnv set.
var helpers = map[string]func(args []string) error{
	"open":     helpOpen,
	"hold":     helpHold,
	"churn":    helpChurn,
	"many":     helpMany,
	"limit":    helpLimit,
	"agent":    helpAgent,
	"readonly": helpReadOnly,
	"refused":  helpRefused,
	"nolocks":  helpNoLocks,

	"closedfill": helpClosedFill,
	"leftover":   helpLeftover,
}

const helperEnv = "PFMOUNT_CACHE_HELPER"

func TestMain(m *testing.M) {
	name := os.Getenv(helperEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := helpers[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "helper", name+":", err)
		os.Exit(1)
	}
}

// helper makes the command of a helper process, which ends with the test.
func helper(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// inNamespace runs the calling test again in a mount namespace of its own, where it may mount: true
// there. Without root a user namespace is made for it.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const env = "PFMOUNT_CACHE_NAMESPACE"
	if os.Getenv(env) == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatalf("make mounts private: %v", err)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$",
		"-test.count=1", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a mount namespace (needs root, or kernel.unprivileged_userns_clone=1): %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("PASS")) || bytes.Contains(out, []byte("no tests to run")) {
		t.Fatalf("the test did not run in the namespace: %s", out)
	}
	return false
}

func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// content is the blob number n of a series, size bytes long.
func content(n, size int) []byte {
	data := make([]byte, size)
	src := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(size),
		byte(size >> 8), byte(size >> 16)})
	_, _ = src.Read(data)
	return data
}

// source is a fake image: it fills blobs and counts.
type source struct {
	fills atomic.Int64
	delay time.Duration
	piece int // bytes a write; 0: all at once
}

func (src *source) fill(data []byte) Fill {
	return func(ctx context.Context, w Sink) error {
		src.fills.Add(1)
		if src.delay > 0 {
			select {
			case <-time.After(src.delay):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return writePieces(w, data, src.piece)
	}
}

func writePieces(w io.Writer, data []byte, piece int) error {
	if piece <= 0 {
		piece = max(1, len(data))
	}
	for len(data) > 0 {
		n := min(piece, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

var errNoFill = errors.New("filled where a hit was due")

func noFill(context.Context, Sink) error { return errNoFill }

// tiny are limits at which every boundary is a few bytes away.
func tiny(l *limits) {
	l.Chunk, l.Small = 4, 16
}

func testStore(t *testing.T, o Options, change ...func(*limits)) *Store {
	t.Helper()
	s, err := tryStore(o, change...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func tryStore(o Options, change ...func(*limits)) (*Store, error) {
	if o.MinFree == 0 {
		o.MinFree = -1 // the machine's disk is not the tests' business
	}
	lim := defaults()
	for _, c := range change {
		c(&lim)
	}
	return open(o, lim)
}

// get opens a blob, compares its content and closes it.
func get(s *Store, data []byte, fill Fill) error {
	f, err := s.Open(context.Background(), sha256.Sum256(data), int64(len(data)), fill)
	if err != nil {
		return err
	}
	return errors.Join(same(f, data), f.Close())
}

func same(f *File, data []byte) error {
	if f.Size() != int64(len(data)) {
		return fmt.Errorf("size %d, want %d", f.Size(), len(data))
	}
	got := make([]byte, len(data)+1)
	n, err := f.ReadAt(got, 0)
	if err != io.EOF {
		return fmt.Errorf("read past the end: %w", err)
	}
	if !bytes.Equal(got[:n], data) {
		return fmt.Errorf("wrong content: %d bytes, want %d", n, len(data))
	}
	return nil
}

func mustGet(t *testing.T, s *Store, data []byte, fill Fill) {
	t.Helper()
	if err := get(s, data, fill); err != nil {
		t.Fatal(err)
	}
}

func blobFile(dir string, data []byte) string {
	return filepath.Join(dir, "blobs", layout.BlobPath(sha256.Sum256(data)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// du is what du -s says, in bytes.
func du(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if errors.Is(err, fs.ErrNotExist) || unix.Lstat(path, &st) != nil {
			return nil
		}
		n += st.Blocks * 512
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// stored is du of a cache folder without the fills under way. Nobody can add a blob meanwhile.
func stored(t *testing.T, dir string) (n int64) {
	t.Helper()
	lock, err := os.OpenFile(filepath.Join(dir, "usage"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"blobs", "records", "usage", "CACHEDIR.TAG"} {
		n += du(t, filepath.Join(dir, name))
	}
	for _, name := range []string{dir, filepath.Join(dir, "tmp")} {
		var st unix.Stat_t
		if unix.Lstat(name, &st) == nil {
			n += st.Blocks * 512
		}
	}
	return n
}

// countedAs checks a count of a cache folder that is at rest: it has overhead for what is neither a
// blob, a sidecar, a record nor the directory of one.
func countedAs(t *testing.T, n int64, dir string) {
	t.Helper()
	if there := du(t, dir); n < there || n > there+layout.Overhead {
		t.Errorf("counted as %d bytes, %d on disk", n, there)
	}
}

// usageOf reads the usage file.
func usageOf(t *testing.T, dir string) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "usage"))
	if err != nil {
		t.Fatal(err)
	}
	n, _, ok := layout.ParseUsage(string(text))
	if !ok {
		t.Fatalf("usage holds %q", text)
	}
	return n
}

// logs collects log lines.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) lines(word string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, word) {
			n++
		}
	}
	return n
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// openDescriptors counts this process's descriptors that lead into dir.
func openDescriptors(t *testing.T, dir string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// eventually waits for what is due.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if err := waitFor(ok); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// waitFor is eventually in a helper process.
func waitFor(ok func() bool) error {
	const limit = time.Minute // far above what anything takes
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v", limit)
		}
	}
	return nil
}

// clearTable closes all files without readers. A flight may hold its file for a moment after it has
// told its readers.
func clearTable(s *Store) {
	for range 100 {
		s.table.clear()
		s.table.mu.Lock()
		left := s.table.open.Len()
		s.table.mu.Unlock()
		if left == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
