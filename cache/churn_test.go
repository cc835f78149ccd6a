package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	churnBlobs = 60
	churnLimit = 1 << 20
)

func churnSize(i int) int { return []int{0, 1, 100, 4096, 4097, 20000, 70000, 150000}[i%8] }

// helpChurn opens blobs at random for a while, with seeded delays, checks each byte and prunes now
// and then. DIR SEED MILLISECONDS
func helpChurn(args []string) error {
	s, err := tryStore(Options{Dir: args[0], Size: churnLimit, OpenFiles: 16}, func(l *limits) {
		l.tick = 50 * time.Millisecond
		l.Small, l.Chunk = 32<<10, 8<<10
		l.At = delays(uint64(helperNumber(args[1])), 3*time.Millisecond, 50)
	})
	if err != nil {
		return err
	}
	fmt.Println("begun")
	end := time.Now().Add(time.Duration(helperNumber(args[2])) * time.Millisecond)
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for worker := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(helperNumber(args[1])), uint64(worker)))
			for time.Now().Before(end) {
				i := rnd.IntN(churnBlobs)
				data := content(i, churnSize(i))
				src := &source{piece: 5000, delay: time.Duration(rnd.IntN(3)) * time.Millisecond}
				if err := get(s, data, src.fill(data)); err != nil {
					errs <- fmt.Errorf("blob %d: %w", i, err)
					return
				}
				if rnd.IntN(200) == 0 {
					if _, _, err := s.Prune(context.Background(), churnLimit/2); err != nil {
						errs <- err
						return
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return errors.Join(<-errs, s.Close())
}

// watchLimit looks at the folder until done and fails when more is in it than the limit allows.
func watchLimit(t *testing.T, dir string, done *sync.WaitGroup) {
	t.Helper()
	ended := make(chan bool)
	go func() { done.Wait(); close(ended) }()
	most := int64(0)
	for over := false; !over; most = max(most, stored(t, dir)) {
		select {
		case <-ended:
			over = true
		case <-time.After(5 * time.Millisecond):
		}
	}
	if most > churnLimit {
		t.Fatalf("%d bytes on disk, limit %d", most, churnLimit)
	}
}

// Several processes fill, read and evict in one small cache, and some are killed at random. Every
// byte is checked by them, the folder after each round, and the limit all the time.
func TestProcessesChurn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const rounds, procs = 8, 3
	seed := int64(fromEnv(t, "PFMOUNT_SEED", 1))
	t.Logf("PFMOUNT_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	for round := range rounds {
		var wg sync.WaitGroup
		for p := range procs {
			kill := time.Duration(0)
			if p > 0 {
				kill = time.Duration(50+rnd.IntN(400)) * time.Millisecond
			}
			cmd := helper(t, "churn", dir, strconv.FormatInt(seed+int64(round*procs+p), 10), "500")
			must(t, cmd.Start())
			wg.Go(func() {
				if kill > 0 {
					time.Sleep(kill)
					_ = cmd.Process.Kill()
				}
				if err := cmd.Wait(); err != nil && kill == 0 {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		watchLimit(t, dir, &wg)
		audit(t, dir)
	}
}

// Processes that make a cache at the same time agree on what is in it: one starts the number while
// others count.
func TestProcessesStartTogether(t *testing.T) {
	t.Parallel()
	for round := range 8 {
		dir := t.TempDir()
		var wg sync.WaitGroup
		for p := range 4 {
			cmd := helper(t, "churn", dir, strconv.Itoa(round*10+p), "150")
			must(t, cmd.Start())
			wg.Go(func() {
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			})
		}
		watchLimit(t, dir, &wg)
		audit(t, dir)
	}
}
