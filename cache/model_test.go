package cache

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// model is what eviction and accounting should do, in a few lines: blobs with an age, evicted oldest first.
type model struct {
	age map[int]int // blob: minutes
}

func (m *model) evict(keep int) {
	byAge := slices.SortedFunc(maps.Keys(m.age), func(a, b int) int { return cmp.Compare(m.age[a], m.age[b]) })
	for _, i := range byAge[min(keep, len(byAge)):] {
		delete(m.age, i)
	}
}

// A random sequence of fills, reads, prunes, restarts and damage against the model. All blobs take two blocks.
func TestModel(t *testing.T) {
	const blobs, size = 50, 5000
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			dir := t.TempDir()
			s := testStore(t, Options{Dir: dir})
			m := &model{age: make(map[int]int)}
			clock := 100_000 // minutes; each use is one minute younger
			for step := range 300 {
				i := rnd.IntN(blobs)
				data := content(i, size)
				_, there := m.age[i]
				switch op := rnd.IntN(20); {
				case op < 15: // use
					src := &source{}
					mustGet(t, s, data, src.fill(data))
					if filled := src.fills.Load() == 1; filled == there {
						t.Fatalf("step %d: blob %d filled %v, in the model %v", step, i, filled, there)
					}
					clock--
					m.age[i] = clock
					setAtime(t, dir, data, clock)
				case op < 17: // prune to some number of blobs
					keep := rnd.IntN(blobs)
					m.evict(keep)
					pruneTo(t, s, keep)
				case op < 18: // restart
					must(t, s.Close())
					s = testStore(t, Options{Dir: dir})
				case op < 19 && there: // damage, noticed when it is used next
					cut(t, blobFile(dir, data), 10)
					s.table.clear()
					src := &source{}
					mustGet(t, s, data, src.fill(data))
					if src.fills.Load() != 1 {
						t.Fatalf("step %d: damage was not noticed", step)
					}
					setAtime(t, dir, data, m.age[i])
				default:
					s.table.clear()
				}
				want := slices.Sorted(maps.Keys(m.age))
				if got := kept(dir, blobs, size); !slices.Equal(got, want) {
					t.Fatalf("step %d: on disk %v, in the model %v", step, got, want)
				}
				if used, usage := du(t, dir), usageOf(t, dir); used > usage {
					t.Fatalf("step %d: %d on disk, usage %d", step, used, usage)
				}
			}
			_, _, err := s.Prune(context.Background(), 1<<40)
			must(t, err)
			if used, usage := du(t, dir), usageOf(t, dir); used != usage {
				t.Errorf("after a count: %d on disk, usage %d", used, usage)
			}
		})
	}
}

// pruneTo prunes one blob at a time until keep are left.
func pruneTo(t *testing.T, s *Store, keep int) {
	t.Helper()
	for {
		info, err := s.Info(context.Background())
		must(t, err)
		if info.Files <= keep {
			return
		}
		if _, n, err := s.Prune(context.Background(), info.Used-1); err != nil || n != 1 {
			t.Fatalf("Prune: %d, %v", n, err)
		}
	}
}

// Two Stores fill and evict at once; neither loses the count.
func TestConcurrentEviction(t *testing.T) {
	dir := t.TempDir()
	const size = 700_000
	var wg sync.WaitGroup
	for w := range 2 {
		s := testStore(t, Options{Dir: dir, Size: size})
		for g := range 3 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(w), uint64(g)))
				for range 150 {
					i := rnd.IntN(200)
					data := content(i, i*50)
					if err := get(s, data, new(source).fill(data)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	done := make(chan bool)
	go func() { wg.Wait(); close(done) }()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(5 * time.Millisecond):
		}
		if n := stored(t, dir); n > size {
			t.Fatalf("%d on disk, limit %d", n, size)
		}
	}
	audit(t, dir)
}
