package cache

import (
	"bufio"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// fromEnv is a number that a soak may set.
func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// Processes that fill, read and evict are killed at random instants. After each round the folder is
// as sound as after a clean end, before any repair, and the next start removes what the killed
// processes left.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := fromEnv(t, "PFMOUNT_KILL_ROUNDS", 100)
	seed := fromEnv(t, "PFMOUNT_KILL_SEED", 1)
	t.Logf("PFMOUNT_KILL_SEED=%d PFMOUNT_KILL_ROUNDS=%d", seed, rounds)
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	dir := t.TempDir()
	kills, left := 0, 0
	for round := 0; round < rounds || left == 0 && round < 10*rounds; round++ {
		var wg sync.WaitGroup
		for range 1 + round%2 {
			churn, after := rnd.IntN(1e9), time.Duration(rnd.IntN(30_000))*time.Microsecond
			wg.Go(func() {
				if err := killChurn(helper(t, "churn", dir, strconv.Itoa(churn), "60000"),
					after); err != nil {
					t.Error(err)
				}
			})
			kills++
		}
		wg.Wait()
		if audit(t, dir); stored(t, dir) > churnLimit {
			t.Errorf("%d bytes on disk, limit %d", stored(t, dir), churnLimit)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
		names, err := os.ReadDir(filepath.Join(dir, "tmp"))
		must(t, err)
		left += len(names)
		s := testStore(t, Options{Dir: dir})
		eventually(t, "leftovers are removed", func() bool {
			names, err := os.ReadDir(filepath.Join(dir, "tmp"))
			return err == nil && len(names) == 0
		})
		must(t, s.Close())
	}
	t.Logf("%d kills, %d leftovers", kills, left)
	if left == 0 {
		t.Error("no fill was hit")
	}
}

// killChurn starts a process that uses the cache, and kills it that long after it has begun.
func killChurn(cmd *exec.Cmd, after time.Duration) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_, err = bufio.NewReader(out).ReadString('\n')
	time.Sleep(after)
	err = errors.Join(err, cmd.Process.Kill())
	_ = cmd.Wait()
	return err
}
