package cache

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// model is what eviction and accounting should do, in a few lines: blobs with an age, evicted oldest first.
type model struct {
	age map[int]int // blob: minutes
}

func (m *model) evict(keep int) {
	byAge := slices.SortedFunc(maps.Keys(m.age),
		func(a, b int) int { return cmp.Compare(m.age[a], m.age[b]) })
	for _, i := range byAge[min(keep, len(byAge)):] {
		delete(m.age, i)
	}
}

// helpAgent does what it reads from its standard input, a line at a time, with seeded delays, and
// answers each. DIR SEED
func helpAgent(args []string) error {
	s, err := tryStore(Options{Dir: args[0]},
		func(l *limits) { l.At = delays(uint64(helperNumber(args[1])), 2*time.Millisecond, 4) })
	if err != nil {
		return err
	}
	var op string
	var n int
	for {
		if _, err := fmt.Scanln(&op, &n); err != nil {
			return s.Close()
		}
		data := content(n, modelSize)
		src := &source{}
		fill := src.fill(data)
		switch op {
		case "use":
			err = get(s, data, fill)
		case "die": // half way through a fill
			err = get(s, data, func(_ context.Context, w Sink) error {
				_ = writePieces(w, data[:len(data)/2], 0)
				fmt.Println("half")
				select {}
			})
		case "prune":
			err = pruneTo(s, n)
		}
		if err != nil {
			return fmt.Errorf("%s %d: %w", op, n, err)
		}
		s.table.clear()
		fmt.Println(src.fills.Load())
	}
}

// agent is a process that helpAgent runs.
type agent struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newAgent(t *testing.T, dir string, seed int) *agent {
	t.Helper()
	a := &agent{t: t, cmd: helper(t, "agent", dir, strconv.Itoa(seed))}
	in, err := a.cmd.StdinPipe()
	must(t, err)
	out, err := a.cmd.StdoutPipe()
	must(t, err)
	a.in, a.out = in, bufio.NewReader(out)
	must(t, a.cmd.Start())
	return a
}

func (a *agent) do(op string, n int) string {
	a.t.Helper()
	_, err := fmt.Fprintln(a.in, op, n)
	must(a.t, err)
	line, err := a.out.ReadString('\n')
	must(a.t, err)
	return strings.TrimSpace(line)
}

func (a *agent) end() {
	a.t.Helper()
	must(a.t, errors.Join(a.in.Close(), a.cmd.Wait()))
}

const modelSize = 5000 // bytes of a blob, which takes two blocks

// A random sequence of fills, reads, prunes, damage, ends and deaths of two processes that share a
// cache, against the model.
func TestModel(t *testing.T) {
	t.Parallel()
	const blobs = 50
	first := fromEnv(t, "PFMOUNT_SEED", 0)
	for i := range fromEnv(t, "PFMOUNT_SEEDS", 4) {
		seed := first + i
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			dir := t.TempDir()
			agents := []*agent{newAgent(t, dir, seed), newAgent(t, dir, seed+1)}
			m := &model{age: make(map[int]int)}
			clock := 100_000 // minutes; each use is one minute younger
			for step := range 300 {
				i, p := rnd.IntN(blobs), rnd.IntN(len(agents))
				data := content(i, modelSize)
				_, there := m.age[i]
				switch op := rnd.IntN(20); {
				case op < 15: // use
					if filled := agents[p].do("use", i) == "1"; filled == there {
						t.Fatalf("step %d: blob %d filled %v, in the model %v", step, i, filled, !there)
					}
					clock--
					m.age[i] = clock
					setAtime(t, dir, data, clock)
				case op < 17: // prune to some number of blobs
					keep := rnd.IntN(blobs)
					m.evict(keep)
					agents[p].do("prune", keep)
				case op < 18: // a new process
					if rnd.IntN(2) == 0 && !there && agents[p].do("die", i) == "half" {
						must(t, agents[p].cmd.Process.Kill())
						_ = agents[p].cmd.Wait()
					} else {
						agents[p].end()
					}
					agents[p] = newAgent(t, dir, step)
				case op < 19 && there: // damage, noticed when it is used next
					cut(t, blobFile(dir, data), 10)
					if agents[p].do("use", i) != "1" {
						t.Fatalf("step %d: damage was not noticed", step)
					}
					setAtime(t, dir, data, m.age[i])
				}
				want := slices.Sorted(maps.Keys(m.age))
				if got := kept(dir, blobs, modelSize); !slices.Equal(got, want) {
					t.Fatalf("step %d: on disk %v, in the model %v", step, got, want)
				}
				if used, usage := stored(t, dir), usageOf(t, dir); used > usage {
					t.Fatalf("step %d: %d on disk, usage %d", step, used, usage)
				}
			}
			for _, a := range agents {
				a.end()
			}
			_, _, err := testStore(t, Options{Dir: dir}).Prune(context.Background(), 1<<40)
			must(t, err)
			countedAs(t, usageOf(t, dir), dir)
			audit(t, dir)
		})
	}
}

// pruneTo prunes one blob at a time until keep are left.
func pruneTo(s *Store, keep int) error {
	for {
		info, err := s.Info(context.Background())
		if err != nil || info.Files <= keep {
			return err
		}
		if _, n, err := s.Prune(context.Background(), info.Used-1); err != nil || n != 1 {
			return fmt.Errorf("pruned %d: %w", n, err)
		}
	}
}

// Two Stores fill and evict at once; neither loses the count.
func TestConcurrentEviction(t *testing.T) {
	t.Parallel()
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
