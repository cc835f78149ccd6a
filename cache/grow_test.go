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
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// few makes large blobs of small ones: those over 64 KiB are not served from memory.
func few(l *limits) { l.Small = 64 << 10 }

// lie fills without end, up to most bytes, and calls seen after each write.
func lie(most int, seen func()) Fill {
	return func(_ context.Context, w Sink) error {
		piece := make([]byte, 32<<10)
		for n := 0; n < most; n += len(piece) {
			if _, err := w.Write(piece); err != nil {
				return err
			}
			seen()
		}
		return errors.New("it decodes to something else")
	}
}

// old fills a cache with n blobs of 10,000 bytes, the first being the oldest.
func old(t *testing.T, s *Store, dir string, n int) {
	t.Helper()
	for i := range n {
		mustGet(t, s, content(i, 10_000), new(source).fill(content(i, 10_000)))
		setAtime(t, dir, content(i, 10_000), n-i)
	}
	clearTable(s)
}

// A blob of unsigned size that never ends, alone and with others at once: the cache is never
// beyond its limit, the half that was read last stays however often that comes, the error is
// ErrRoom, and the room is free again.
func TestUnsignedLie(t *testing.T) {
	t.Parallel()
	for _, at := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(at, " at once"), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			size := int64(layout.Overhead) + 4<<20
			s := testStore(t, Options{Dir: dir, Size: size}, few)
			old(t, s, dir, 93)
			var first int
			for round := range 3 {
				var wg sync.WaitGroup
				for i := range at {
					wg.Go(func() {
						key := sha256.Sum256(fmt.Append(nil, round, i))
						_, err := s.Open(context.Background(), key, -1, lie(64<<20, func() {
							if n := du(t, dir); n > size {
								t.Errorf("%d bytes on disk, the limit is %d", n, size)
							}
						}))
						if !errors.Is(err, ErrRoom) || !errors.Is(err, unix.ENOSPC) ||
							!strings.Contains(fmt.Sprint(err), "--cache-size") {
							t.Errorf("%v, want ErrRoom", err)
						}
					})
				}
				wg.Wait()
				left := kept(dir, 93, 10_000)
				if round == 0 {
					first = len(left)
				}
				if len(left) < 46 || len(left) != first || left[len(left)-1] != 92 {
					t.Errorf("round %d: %d of 93 blobs are left, after the first %d: %v", round,
						len(left), first, left)
				}
			}
			if names, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(names) > 0 {
				t.Errorf("left in tmp: %v, %v", names, err)
			}
			must(t, s.Close())
			if usage, there := usageOf(t, dir), stored(t, dir); usage < there {
				t.Errorf("usage %d, %d on disk", usage, there)
			}
			audit(t, dir)
		})
	}
}

// A blob of unsigned size may have all that is free, and makes room as any other.
func TestUnsignedFits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	size := int64(layout.Overhead) + 4<<20
	s := testStore(t, Options{Dir: dir, Size: size}, few)
	unsigned := func(data []byte) {
		t.Helper()
		f, err := s.Open(context.Background(), sha256.Sum256(data), -1, (&source{piece: 10_000}).fill(data))
		must(t, err)
		must(t, errors.Join(same(f, data), f.Close()))
		if !exists(blobFile(dir, data)) {
			t.Errorf("the blob of %d bytes is not kept", len(data))
		}
		if n, there := usageOf(t, dir), du(t, dir); n < there {
			t.Errorf("usage %d, %d on disk", n, there)
		}
	}
	unsigned(content(1, 4_000_000)) // all of an empty cache
	_, _, err := s.Prune(context.Background(), 0)
	must(t, err)
	old(t, s, dir, 250)
	unsigned(content(2, 1_900_000))
	if n := len(kept(dir, 250, 10_000)); n < 100 || n == 250 {
		t.Errorf("%d of 250 blobs are left", n)
	}
	for i := range 3 {
		unsigned(content(10+i, 100+i*100_000))
	}
	audit(t, dir)
}

// A disk that is nearly full: what is to stay free stays free, and the cache keeps its newer half.
func TestUnsignedFloor(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	dir := mountTmpfs(t, "20m")
	s := testStore(t, Options{Dir: dir, MinFree: 0.25}, few)
	old(t, s, dir, 93)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			_, err := s.Open(context.Background(), digest{byte(i)}, -1, lie(64<<20, func() {
				var st unix.Statfs_t
				if must(t, unix.Statfs(dir, &st)); st.Bavail*4 < st.Blocks {
					t.Errorf("%d of %d blocks are free", st.Bavail, st.Blocks)
				}
			}))
			if !errors.Is(err, ErrRoom) || !strings.Contains(fmt.Sprint(err), "--cache-min-free") {
				t.Errorf("%v, want ErrRoom", err)
			}
		})
	}
	wg.Wait()
	if left := kept(dir, 93, 10_000); len(left) != 93 { // they take less than half of what the disk has
		t.Errorf("%d of 93 blobs are left", len(left))
	}
	must(t, s.Close())
	audit(t, dir)
}

// The room of a fill that ends on the way, by itself or with its Store, is free at the next count.
func TestUnsignedEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir}, few)
	before := usageOf(t, dir)
	counted := func(when string) {
		t.Helper()
		s := testStore(t, Options{Dir: dir}, few)
		if _, _, err := s.Prune(context.Background(), 1<<40); err != nil || usageOf(t, dir) != before {
			t.Errorf("%s: %v; usage %d, %d before", when, err, usageOf(t, dir), before)
		}
	}
	_, err := s.Open(context.Background(), digest{1}, -1, lie(3<<20, func() {}))
	if err == nil || usageOf(t, dir) < before {
		t.Errorf("%v; usage %d, %d before", err, usageOf(t, dir), before)
	}
	counted("after a failure")
	filling := make(chan bool)
	go func() {
		<-filling
		_ = s.Close()
	}()
	_, err = s.Open(context.Background(), digest{2}, -1, func(ctx context.Context, w Sink) error {
		must(t, writePieces(w, make([]byte, 3<<20), 0))
		if n := usageOf(t, dir); n < before+3<<20 {
			t.Errorf("usage %d while 3 MiB are under way, %d before", n, before)
		}
		close(filling)
		<-ctx.Done()
		return ctx.Err()
	})
	if must(t, s.Close()); !errors.Is(err, ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	counted("after the end")
	audit(t, dir)
}

// Whoever counts while a blob of unsigned size grows, or gets its name, counts it.
func TestUnsignedCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, other := testStore(t, Options{Dir: dir}, few), testStore(t, Options{Dir: dir}, few)
	count := func() {
		_, _, err := other.Prune(context.Background(), 1<<40)
		must(t, err)
	}
	data := content(1, 3<<20)
	f, err := s.Open(context.Background(), sha256.Sum256(data), -1, func(_ context.Context, w Sink) error {
		for rest := data; len(rest) > 0; rest = rest[min(len(rest), 500_000):] {
			must(t, writePieces(w, rest[:min(len(rest), 500_000)], 0))
			count()
			if n, there := usageOf(t, dir), du(t, dir); n < there {
				t.Errorf("usage %d, %d on disk", n, there)
			}
		}
		return nil
	})
	must(t, err)
	must(t, errors.Join(same(f, data), f.Close()))
	if n, there := usageOf(t, dir), du(t, dir); n < there || n > there+int64(len(data)) {
		t.Errorf("usage %d, %d on disk", n, there)
	}
	count()
	countedAs(t, usageOf(t, dir), dir)
	audit(t, dir)
}

// A signed size that cannot fit is known before anything is asked for, and nothing is evicted for
// it.
func TestSignedTooLarge(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	for name, tt := range map[string]struct {
		o    Options
		size int64
		says []string
	}{
		"limit": {Options{Size: 4 << 20}, 5 << 20, []string{"5242880", "4194304", "--cache-size"}},
		"disk":  {Options{MinFree: 0.25}, 16 << 20, []string{"16777216", "--cache-min-free"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, "20m")
			tt.o.Dir = dir
			s := testStore(t, tt.o, few)
			old(t, s, dir, 93)
			_, err := s.Open(context.Background(), digest{1}, tt.size, noFill)
			if !errors.Is(err, ErrRoom) || !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%v, want ErrRoom", err)
			}
			for _, word := range tt.says {
				if !strings.Contains(fmt.Sprint(err), word) {
					t.Errorf("%v, want %q in it", err, word)
				}
			}
			if left := kept(dir, 93, 10_000); len(left) != 93 {
				t.Errorf("%d of 93 blobs are left", len(left))
			}
		})
	}
}
