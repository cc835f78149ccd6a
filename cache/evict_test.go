package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// setAtime makes a blob as old as minutes say.
func setAtime(t *testing.T, dir string, data []byte, minutes int) {
	t.Helper()
	at := time.Now().Add(-time.Duration(minutes) * time.Minute)
	must(t, os.Chtimes(blobFile(dir, data), at, layout.Stamp(sha256.Sum256(data))))
}

// kept lists which of the first n blobs of size bytes are on disk.
func kept(dir string, n, size int) (list []int) {
	for i := range n {
		if exists(blobFile(dir, content(i, size))) {
			list = append(list, i)
		}
	}
	return list
}

func TestEvictionOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	ages := []int{30, 10, 50, 20, 40}
	for i, age := range ages {
		mustGet(t, s, content(i, 10_000), new(source).fill(content(i, 10_000)))
		setAtime(t, dir, content(i, 10_000), age)
	}
	for _, want := range [][]int{{0, 1, 3, 4}, {0, 1, 3}, {1, 3}, {1}, nil} {
		before := s.Stats().Evicted
		info, err := s.Info(context.Background())
		must(t, err)
		freed, n, err := s.Prune(context.Background(), info.Used-1)
		if err != nil || n != 1 || freed < 12288 || s.Stats().Evicted != before+1 {
			t.Errorf("Prune: %d bytes, %d blobs, %v", freed, n, err)
		}
		if got := kept(dir, len(ages), 10_000); !slices.Equal(got, want) {
			t.Errorf("left %v, want %v", got, want)
		}
	}
	countedAs(t, usageOf(t, dir), dir)
}

// Few candidates are kept while scanning, so eviction takes several rounds. The order is the same.
func TestEvictionRounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir}, func(l *limits) { l.Candidates = 4 })
	for i := range 40 {
		mustGet(t, s, content(i, 5000), new(source).fill(content(i, 5000)))
		setAtime(t, dir, content(i, 5000), 1000-i*7%40)
	}
	info, err := s.Info(context.Background())
	must(t, err)
	if _, n, err := s.Prune(context.Background(), info.Used-30*8192+1); err != nil || n < 20 || n > 30 {
		t.Fatalf("%d evicted, %v", n, err)
	}
	left := kept(dir, 40, 5000)
	oldest := 0
	for _, i := range left {
		oldest = max(oldest, 1000-i*7%40)
	}
	for i := range 40 {
		if !slices.Contains(left, i) && 1000-i*7%40 < oldest {
			t.Errorf("blob %d, %d minutes old, is gone; one of %d minutes is there", i, 1000-i*7%40, oldest)
		}
	}
}

// Crossing the limit evicts to 90 %; the limit holds at every moment.
func TestLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const size = 400_000
	s := testStore(t, Options{Dir: dir, Size: size})
	for i := range 200 {
		n := i * 997 % 9000
		mustGet(t, s, content(i, n), new(source).fill(content(i, n)))
		if used, usage := du(t, dir), usageOf(t, dir); used > usage || usage > size {
			t.Fatalf("after %d: %d on disk, usage %d, limit %d", i, used, usage, size)
		}
	}
	if s.Stats().Evicted == 0 {
		t.Error("nothing was evicted")
	}
	huge := content(1, size+1) // never fits: served, not kept, and nothing is evicted for it
	before := s.Stats().Evicted
	mustGet(t, s, huge, new(source).fill(huge))
	if exists(blobFile(dir, huge)) || s.Stats().Evicted != before {
		t.Error("a blob over the limit was kept, or others went for it")
	}
	eventually(t, "its space comes back",
		func() bool { s.table.closeIf(func(*entry) bool { return true }); return s.Stats().OpenFiles == 0 })
}

// Recency survives a restart, and costs no write per read: atime is set when the blob is opened, if
// older than a minute.
func TestRecencySurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	for i := range 3 {
		mustGet(t, s, content(i, 5000), new(source).fill(content(i, 5000)))
		setAtime(t, dir, content(i, 5000), 60-i*10)
	}
	must(t, s.Close())
	s = testStore(t, Options{Dir: dir})
	mustGet(t, s, content(0, 5000), noFill)
	must(t, s.Close())
	s = testStore(t, Options{Dir: dir})
	info, err := s.Info(context.Background())
	must(t, err)
	if time.Since(info.Newest) > time.Minute || time.Since(info.Oldest) < 45*time.Minute {
		t.Errorf("oldest %v, newest %v", info.Oldest, info.Newest)
	}
	_, _, err = s.Prune(context.Background(), info.Used-1)
	must(t, err)
	if got := kept(dir, 3, 5000); !slices.Equal(got, []int{0, 2}) {
		t.Errorf("left %v, want the one that was read and the younger", got)
	}
	var before, after unix.Stat_t
	must(t, unix.Stat(blobFile(dir, content(0, 5000)), &before))
	for range 5 {
		clearTable(s)
		mustGet(t, s, content(0, 5000), noFill)
	}
	must(t, unix.Stat(blobFile(dir, content(0, 5000)), &after))
	if before.Atim != after.Atim || before.Ctim != after.Ctim {
		t.Error("reading wrote times within the minute")
	}
}

// A blob that stays open for long keeps its recency, too.
func TestRecencyOfOpenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir},
		func(l *limits) { l.AtimeGrain, l.tick = 30*time.Millisecond, 10*time.Millisecond })
	data := content(1, 100)
	mustGet(t, s, data, new(source).fill(data))
	setAtime(t, dir, data, 60)
	eventually(t, "atime is young", func() bool {
		mustGet(t, s, data, noFill)
		var st unix.Stat_t
		must(t, unix.Stat(blobFile(dir, data), &st))
		return time.Since(layout.Atime(&st)) < time.Minute
	})
}

// TestEvictedWhileRead has another Store evict a blob that is being read: the read goes on, and the
// file is closed soon after its end.
func TestEvictedWhileRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	quick := func(l *limits) { l.tick = 20 * time.Millisecond }
	s, other := testStore(t, Options{Dir: dir}, quick), testStore(t, Options{Dir: dir}, quick)
	data := content(1, 100_000)
	f, err := s.Open(context.Background(), sha256.Sum256(data), 100_000, new(source).fill(data))
	must(t, err)
	idle := content(2, 1000)
	mustGet(t, s, idle, new(source).fill(idle))
	if _, n, err := other.Prune(context.Background(), 0); err != nil || n != 2 {
		t.Fatalf("%d evicted, %v", n, err)
	}
	eventually(t, "the idle file is closed", func() bool { return s.Stats().OpenFiles == 1 })
	must(t, same(f, data))
	must(t, f.Close())
	eventually(t, "the file is closed", func() bool { return s.Stats().OpenFiles == 0 })
}

func TestPruneAndClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir}, tiny)
	data := content(1, 100)
	f, err := s.Open(context.Background(), sha256.Sum256(data), 100, new(source).fill(data))
	must(t, err)
	defer f.Close()
	for i := range 30 {
		mustGet(t, s, content(i+2, i), new(source).fill(content(i+2, i)))
	}
	must(t, s.SetRecord("name", []byte("data")))
	if _, n, err := s.Prune(context.Background(), 0); err != nil || n != 31 {
		t.Errorf("Prune: %d, %v", n, err)
	}
	if _, err := s.Record("name"); err != nil {
		t.Errorf("Prune took a record: %v", err)
	}
	mustGet(t, s, content(3, 1000), new(source).fill(content(3, 1000)))

	filling, finish := make(chan bool), make(chan bool)
	late := content(60, 1000)
	got := make(chan error, 1)
	go func() {
		got <- get(s, late, func(_ context.Context, w Sink) error {
			close(filling)
			<-finish
			return writePieces(w, late, 0)
		})
	}()
	<-filling
	must(t, s.Clear(context.Background()))
	if _, err := s.Record("name"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Clear left a record: %v", err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "blobs")); err != nil || len(list) > 0 {
		t.Errorf("Clear left %v, %v", list, err)
	}
	close(finish)
	must(t, <-got)
	must(t, same(f, data))
	audit(t, dir)
	if got, want := usageOf(t, dir), stored(t, dir); got < want ||
		got > want+layout.Overhead+2*layout.BlockSize {
		t.Errorf("usage %d, du %d", got, want)
	}
}
