package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// delays returns a function that waits at points for seeded times up to most, one time in so many.
func delays(seed uint64, most time.Duration, oneIn int) func(string) {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 7))
	return func(string) {
		mu.Lock()
		d := time.Duration(0)
		if rnd.IntN(oneIn) == 0 {
			d = time.Duration(rnd.Int64N(int64(most)))
		}
		mu.Unlock()
		if d > 0 {
			time.Sleep(d)
		}
	}
}

// TestInterleavings lets Stores that share a folder, as processes do, fill, read, evict, drop and
// close in virtual time, with seeded delays at every point where another may come in between. What
// must hold is held against it at each point: one fill a key at a time among them all, none of a
// blob that is on disk, right bytes, and the limit.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	seeds, first := fromEnv(t, "PFMOUNT_SEEDS", 30), fromEnv(t, "PFMOUNT_SEED", 1)
	t.Logf("PFMOUNT_SEED=%d PFMOUNT_SEEDS=%d", first, seeds)
	limit := int64(layout.Overhead) + 100_000
	var sum Stats
	met := make(map[string]int)
	for i := range seeds {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, dir: t.TempDir(), limit: limit, seed: uint64(first + i), met: met}
			st := w.run()
			sum.Fills, sum.Evicted, sum.Damaged, sum.Hits = sum.Fills+st.Fills, sum.Evicted+st.Evicted, sum.Damaged+st.Damaged, sum.Hits+st.Hits
			s := testStore(t, Options{Dir: w.dir})
			_, err := s.Verify(context.Background()) // drops the bad blocks that no read has met
			must(t, errors.Join(err, s.Close()))
			if audit(t, w.dir); t.Failed() {
				t.Fatalf("PFMOUNT_SEED=%d PFMOUNT_SEEDS=1", w.seed)
			}
		})
	}
	t.Logf("%d fills, %d hits, %d evicted, %d damaged; points met: %v", sum.Fills, sum.Hits,
		sum.Evicted, sum.Damaged, met)
	if sum.Fills == 0 || sum.Hits == 0 || sum.Evicted == 0 || sum.Damaged == 0 || len(met) < 10 {
		t.Error("something did not come about")
	}
}

// world is the model of one run: what is known of each key.
type world struct {
	t       *testing.T
	dir     string
	limit   int64
	seed    uint64
	filling [12]atomic.Int64

	mu  sync.Mutex // guards met
	met map[string]int
}

func (w *world) blob(i int) []byte { return content(i, 3000*(i%4)+i) }

func (w *world) run() (sum Stats) {
	var wg sync.WaitGroup
	for p := range 3 {
		wait := delays(w.seed*10+uint64(p), 30*time.Millisecond, 3)
		s, err := tryStore(Options{Dir: w.dir, Size: w.limit, OpenFiles: 12}, func(l *limits) {
			l.Small, l.Chunk, l.tick, l.AtimeGrain = 4096, 1024, 500*time.Millisecond, 0
			l.At = func(point string) {
				w.mu.Lock()
				w.met[point]++
				w.mu.Unlock()
				wait(point)
				w.holds(point)
			}
		})
		must(w.t, err)
		var readers sync.WaitGroup
		for r := range 3 {
			readers.Go(func() { w.reader(s, rand.New(rand.NewPCG(w.seed, uint64(10*p+r)))) })
		}
		wg.Go(func() {
			readers.Wait()
			must(w.t, s.Close())
			st := s.Stats()
			w.mu.Lock()
			sum.Fills, sum.Evicted, sum.Damaged, sum.Hits = sum.Fills+st.Fills, sum.Evicted+st.Evicted, sum.Damaged+st.Damaged, sum.Hits+st.Hits
			w.mu.Unlock()
			if st.OpenFiles != 0 {
				w.t.Errorf("%d files left open", st.OpenFiles)
			}
		})
	}
	wg.Wait()
	return sum
}

// reader does what a mount and the commands do, at random.
func (w *world) reader(s *Store, rnd *rand.Rand) {
	for range 12 {
		time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
		i := rnd.IntN(len(w.filling))
		var err error
		switch op := rnd.IntN(12); op {
		case 0:
			_, _, err = s.Prune(context.Background(), w.limit/2)
		case 1:
			s.table.clear()
		case 2: // a bad block
			if path := blobFile(w.dir, w.blob(i)); os.Chmod(path, 0o600) == nil {
				_ = os.Truncate(path, 1)
			}
			s.table.clear()
		default:
			err = get(s, w.blob(i), w.fill(i))
		}
		if err != nil && !errors.Is(err, ErrDamaged) { // a bad block, fetched again and bad again
			w.t.Errorf("seed %d: %v", w.seed, err)
		}
	}
}

func (w *world) fill(i int) Fill {
	data := w.blob(i)
	return func(_ context.Context, sink Sink) error {
		if n := w.filling[i].Add(1); n > 1 {
			w.t.Errorf("seed %d: %d fills of blob %d at once", w.seed, n, i)
		}
		defer w.filling[i].Add(-1)
		err := writePieces(sink, data[:len(data)/2], 1000)
		time.Sleep(time.Duration(i) * time.Millisecond)
		err = errors.Join(err, writePieces(sink, data[len(data)/2:], 1000))
		if exists(blobFile(w.dir, data)) {
			w.t.Errorf("seed %d: blob %d is filled and on disk", w.seed, i)
		}
		return err
	}
}

// holds checks the limit, unless a process is about to change the number.
func (w *world) holds(point string) {
	lock, err := os.OpenFile(filepath.Join(w.dir, "usage"), os.O_RDWR, 0)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	var st unix.Stat_t
	text := make([]byte, layout.UsageSize)
	n, err := lock.ReadAt(text, 0)
	usage, _, ok := layout.ParseUsage(string(text[:n]))
	if err := errors.Join(err, unix.Fstat(int(lock.Fd()), &st)); err != nil || !ok ||
		!layout.Agrees(&st, usage) {
		w.t.Errorf("seed %d, %s: usage %q, %v", w.seed, point, text[:n], err)
	}
	used := du(w.t, w.dir) - du(w.t, filepath.Join(w.dir, "tmp")) + layout.BlockSize
	if used > usage || used > w.limit {
		w.t.Errorf("seed %d, %s: %d on disk, usage %d, limit %d", w.seed, point, used, usage, w.limit)
	}
}
