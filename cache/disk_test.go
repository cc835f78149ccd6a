package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Case 27: a cache on a disk of 20 MB with a limit of 1 GB. 100 MB in 200 files are right, with one
// warning at most.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	for name, minFree := range map[string]float64{"floor": 0.05, "no floor": -1} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, "20m")
			var log logs
			s := testStore(t, Options{Dir: dir, Size: 1 << 30, MinFree: minFree, Log: log.logger()})
			for i := range 200 {
				data := content(i, 500_000)
				mustGet(t, s, data, (&source{piece: 40_000}).fill(data))
			}
			if n := log.lines("WARN"); n > 1 {
				t.Errorf("%d warnings", n)
			}
			if s.Stats().Evicted == 0 {
				t.Error("nothing was evicted")
			}
			audit(t, dir)
		})
	}
}

// fillUp fills the disk up with a file that the cache cannot evict, but for some KiB.
func fillUp(t *testing.T, dir string, leave int64) string {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	path := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(path, make([]byte, int64(st.Bavail)*int64(st.Bsize)-leave), 0o600))
	return path
}

// A disk without any room: small blobs come from memory, within a bound; large ones fail with
// ENOSPC and leave nothing; when there is room again everything is as before.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	dir := mountTmpfs(t, "20m")
	var log logs
	s := testStore(t, Options{Dir: dir, Log: log.logger()}, func(l *limits) { l.memory = 16 << 20 })
	ballast := fillUp(t, dir, 20<<10)
	for i := range 40 {
		data := content(i, 1_000_000)
		mustGet(t, s, data, (&source{piece: 40_000}).fill(data))
		if n := s.Stats().MemoryBytes; n > 16<<20 {
			t.Fatalf("%d bytes in memory", n)
		}
	}
	unknown := content(50, 3_000_000)
	f, err := s.Open(context.Background(), sha256.Sum256(unknown), -1, (&source{piece: 40_000}).fill(unknown))
	must(t, err)
	must(t, errors.Join(same(f, unknown), f.Close()))
	for name, size := range map[string]int64{"known": 9 << 20, "unknown": -1} {
		large := content(60, 9<<20)
		_, err := s.Open(context.Background(), sha256.Sum256(large), size,
			(&source{piece: 40_000}).fill(large))
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: a large blob: %v, want ENOSPC", name, err)
		}
		time.Sleep(s.lim.failureTTL)
	}
	if n := log.lines("WARN"); n < 1 || n > 2 {
		t.Errorf("%d warnings", n)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	must(t, os.Remove(ballast))
	clearTable(s)
	data := content(0, 1_000_000)
	mustGet(t, s, data, new(source).fill(data))
	if !exists(blobFile(dir, data)) {
		t.Error("not kept although there is room again")
	}
	if n := s.Stats().MemoryBytes; n != 0 {
		t.Errorf("%d bytes of memory leaked", n)
	}
	audit(t, dir)
}

// Blobs that are held in memory beyond the bound fail with the disk's error, and work when others are closed.
func TestMemoryBound(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	dir := mountTmpfs(t, "1m")
	s := testStore(t, Options{Dir: dir},
		func(l *limits) { l.memory, l.WaitLimit = 250_000, 50*time.Millisecond })
	fillUp(t, dir, 0)
	var files []*File
	for i := range 2 {
		data := content(i, 100_000)
		f, err := s.Open(context.Background(), sha256.Sum256(data), 100_000, new(source).fill(data))
		must(t, err)
		files = append(files, f)
	}
	data := content(3, 100_000)
	if err := get(s, data, new(source).fill(data)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("beyond the bound: %v", err)
	}
	time.Sleep(s.lim.failureTTL)
	for _, f := range files {
		must(t, f.Close())
	}
	mustGet(t, s, data, new(source).fill(data))
	if n := s.Stats().MemoryBytes; n > 250_000 {
		t.Errorf("%d bytes in memory", n)
	}
}

// The disk fails at a byte that the process limit on file sizes sets: the same without a mount, and
// with EFBIG.
func helpLimit(args []string) error {
	s, err := tryStore(Options{Dir: args[0]})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100_000, Max: 100_000}); err != nil {
		return err
	}
	for i, size := range []int{1000, 99_999, 100_001, 1_000_000, 8 << 20} {
		for _, piece := range []int{0, 1000, 70_000} {
			data := content(i*10+piece, size)
			for _, want := range []int64{int64(size), -1} {
				f, err := s.Open(context.Background(), sha256.Sum256(data), want,
					(&source{piece: piece}).fill(data))
				if err != nil {
					return fmt.Errorf("%d bytes by %d: %w", size, piece, err)
				}
				if err := errors.Join(same(f, data), f.Close()); err != nil {
					return err
				}
				clearTable(s)
			}
		}
	}
	large := content(1, 8<<20+1)
	if err := get(s, large, new(source).fill(large)); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("a large blob: %v, want EFBIG", err)
	}
	return nil
}

func TestDiskFailsMidFill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if out, err := func() ([]byte, error) { c := helper(t, "limit", dir); c.Stderr = nil; return c.CombinedOutput() }(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	audit(t, dir)
}

// A cache that becomes read-only serves what it has, and the rest from memory.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	dir := mountTmpfs(t, "20m")
	data := content(1, 10_000)
	mustGet(t, testStore(t, Options{Dir: dir}), data, new(source).fill(data))
	var log logs
	s := testStore(t, Options{Dir: dir, Log: log.logger()})
	must(t, unix.Chmod(blobFile(dir, data), 0o400))
	// The Store keeps usage open for writing, so the remount is of a bind mount seen by a new
	// Store's path only.
	must(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	s.dir.Close() // its next use opens the read-only path
	for i := range 50 {
		other := content(i+2, 10_000)
		mustGet(t, s, other, new(source).fill(other))
	}
	if n := log.lines("WARN"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if _, err := tryStore(Options{Dir: dir}); !errors.Is(err, unix.EROFS) ||
		!strings.Contains(err.Error(), "--cache-dir") {
		t.Errorf("New on a read-only folder: %v", err)
	}
}

// helpReadOnly is an ordinary user whose cache folder is taken the right to write from, and given
// it back. DIR
func helpReadOnly(args []string) error {
	dir := args[0]
	if os.Geteuid() == 0 { // root may write everywhere
		const nobody = 65534
		if err := errors.Join(os.Chown(dir, nobody, nobody), syscall.Setgroups(nil),
			syscall.Setresgid(nobody, nobody, nobody), syscall.Setresuid(nobody, nobody,
				nobody)); err != nil {
			return err
		}
	}
	s, err := tryStore(Options{Dir: dir})
	if err != nil {
		return err
	}
	defer s.Close()
	chmod := func(mode os.FileMode) error {
		return errors.Join(os.Chmod(dir+"/blobs", mode), os.Chmod(dir+"/tmp", mode), os.Chmod(dir, mode))
	}
	cached, other, large := content(1, 1000), content(2, 1000), content(3, 9<<20)
	err = errors.Join(get(s, cached, new(source).fill(cached)), chmod(0o500))
	clearTable(s)
	err = errors.Join(err, get(s, cached, noFill), get(s, other, new(source).fill(other)))
	if e := get(s, large, new(source).fill(large)); !errors.Is(e, unix.EACCES) {
		err = errors.Join(err, fmt.Errorf("a large blob: %v, want EACCES", e))
	}
	again, e := tryStore(Options{Dir: dir}) // what is cached is of use to the next mount, too
	if e != nil {
		return errors.Join(err, e)
	}
	err = errors.Join(err, get(again, cached, noFill), get(again, other, new(source).fill(other)),
		again.Close())
	err = errors.Join(err, chmod(0o700))
	clearTable(s)
	if err = errors.Join(err, get(s, other, new(source).fill(other))); !exists(blobFile(dir, other)) {
		err = errors.Join(err, errors.New("not kept although the folder may be written again"))
	}
	return err
}

func TestReadOnlyFolder(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "pfmount-cache-test-") // an ordinary user may walk to it
	must(t, err)
	defer os.RemoveAll(dir)
	if out, err := func() ([]byte, error) { c := helper(t, "readonly", dir); c.Stderr = nil; return c.CombinedOutput() }(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// 30 readers of a stalled fill do not keep a cached blob from being opened, even with few descriptors.
func TestStalledFillsLeaveRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir, OpenFiles: 8})
	cached := content(1, 100)
	mustGet(t, s, cached, new(source).fill(cached))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 30 {
		data := content(i+2, 100)
		wg.Go(func() { _, _ = s.Open(ctx, sha256.Sum256(data), 100, (&source{delay: time.Hour}).fill(data)) })
	}
	eventually(t, "the fills stall", func() bool { return s.Stats().OpenFiles >= 6 })
	clearTable(s)
	mustGet(t, s, cached, noFill) // the fills end after an hour
	cancel()
	wg.Wait()
}
