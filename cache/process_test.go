package cache

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

func helperNumber(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// counted fills data slowly and leaves one byte for it in the file counter.
func counted(counter string, data []byte) Fill {
	return func(_ context.Context, w Sink) error {
		f, err := os.OpenFile(counter, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write([]byte("x"))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := writePieces(w, data[:len(data)/2], 1000); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
		return writePieces(w, data[len(data)/2:], 1000)
	}
}

// helpOpen opens blobs 0 to count, of size bytes, in DIR; each is filled as counted says. DIR
// COUNTER COUNT SIZE
func helpOpen(args []string) error {
	s, err := tryStore(Options{Dir: args[0]})
	if err != nil {
		return err
	}
	defer s.Close()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range helperNumber(args[2]) {
		wg.Go(func() {
			data := content(i, helperNumber(args[3]))
			if e := get(s, data, counted(args[1], data)); e != nil {
				mu.Lock()
				err = errors.Join(err, e)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return err
}

func TestProcessesShareFills(t *testing.T) {
	t.Parallel()
	dir, counter := t.TempDir(), filepath.Join(t.TempDir(), "counter")
	const count, size = 10, 50000
	var wg sync.WaitGroup
	for range 4 {
		cmd := helper(t, "open", dir, counter, strconv.Itoa(count), strconv.Itoa(size))
		wg.Go(func() {
			if err := cmd.Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if fills, err := os.ReadFile(counter); err != nil || len(fills) != count {
		t.Errorf("%d fills among 4 processes, want %d; %v", len(fills), count, err)
	}
	audit(t, dir)
}

// helpHold starts a fill, says so, and never ends. DIR SIZE
func helpHold(args []string) error {
	s, err := tryStore(Options{Dir: args[0]})
	if err != nil {
		return err
	}
	data := content(0, helperNumber(args[1]))
	return get(s, data, func(_ context.Context, w Sink) error {
		if err := writePieces(w, data[:len(data)/2], 1000); err != nil {
			return err
		}
		fmt.Println("started")
		select {}
	})
}

// The holder of a fill is killed: a waiter takes over and starts the file over.
func TestHolderDies(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 200_000, "large": 10 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := helper(t, "hold", dir, strconv.Itoa(size))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "started\n" {
				t.Fatalf("helper said %q, %v", line, err)
			}
			s := testStore(t, Options{Dir: dir})
			src := &source{}
			data := content(0, size)
			done := make(chan error, 1)
			go func() { done <- get(s, data, src.fill(data)) }()
			select {
			case err := <-done:
				t.Fatalf("did not wait for the other process: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			select {
			case err := <-done:
				if err != nil || src.fills.Load() != 1 {
					t.Errorf("%d fills, %v", src.fills.Load(), err)
				}
			case <-time.After(time.Minute):
				t.Fatal("the waiter did not take over")
			}
			audit(t, dir)
		})
	}
}

// TestHolderStops: a process that is stopped in the middle of a fill keeps its lock. A waiting
// process goes on without the cache after a while. When the first one is continued, the cache is
// sound.
func TestHolderStops(t *testing.T) {
	t.Parallel()
	dir, data := t.TempDir(), content(1, 1000)
	a := testStore(t, Options{Dir: dir})
	b := testStore(t, Options{Dir: dir}, func(l *limits) { l.Stopped = 100 * time.Millisecond })
	started, goOn, done := make(chan bool), make(chan bool), make(chan error, 1)
	src := &source{}
	go func() {
		done <- get(a, data, func(ctx context.Context, w Sink) error {
			close(started)
			<-goOn
			return src.fill(data)(ctx, w)
		})
	}()
	<-started
	mustGet(t, b, data, src.fill(data))
	if n := b.Stats().MemoryBytes; src.fills.Load() != 1 || n == 0 {
		t.Errorf("%d fills, %d bytes served from memory", src.fills.Load(), n)
	}
	large := content(2, 9<<20)
	hold := make(chan bool)
	go func() {
		_ = get(a, large, func(context.Context, Sink) error { close(hold); <-goOn; return ErrUnwanted })
	}()
	<-hold
	if err := get(b, large, src.fill(large)); !errors.Is(err, layout.ErrBusy) {
		t.Errorf("a blob too large for memory: %v", err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	audit(t, dir)
}

// A fill that fails in one process is tried at once by one that waited briefly, and shared by one
// that waited long, unless the fill was given up for want of readers: that failure is remembered
// nowhere.
func TestFailureElsewhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		patient   time.Duration
		failure   error
		wantErr   error
		wantFills int64
	}{
		"short wait": {time.Hour, errors.New("registry on fire"), nil, 1},
		"long wait":  {20 * time.Millisecond, errors.New("registry on fire"), ErrElsewhere, 0},
		"unwanted":   {20 * time.Millisecond, ErrUnwanted, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, data := t.TempDir(), content(1, 1000)
				a := testStore(t, Options{Dir: dir})
				b := testStore(t, Options{Dir: dir}, func(l *limits) { l.WaitLimit = c.patient })
				started, fail := make(chan bool), make(chan bool)
				done := make(chan error, 1)
				go func() {
					done <- get(a, data, func(context.Context, Sink) error {
						close(started)
						<-fail
						return c.failure
					})
				}()
				<-started
				src := &source{}
				got := make(chan error, 1)
				go func() { got <- get(b, data, src.fill(data)) }()
				time.Sleep(100 * time.Millisecond)
				close(fail)
				if err := <-done; !errors.Is(err, c.failure) {
					t.Errorf("the failing process got %v", err)
				}
				if c.failure == ErrUnwanted {
					if err := get(a, data, src.fill(data)); err != nil {
						t.Errorf("right after it: %v", err)
					}
				}
				if err := <-got; !errors.Is(err, c.wantErr) || src.fills.Load() != c.wantFills {
					t.Errorf("%d fills and %v, want %d and %v", src.fills.Load(), err, c.wantFills, c.wantErr)
				}
			})
		})
	}
}

// Leftovers of dead fills go at the next start, in the background; those in use stay.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	data := content(1, 100)
	started, finish := make(chan bool), make(chan bool)
	done := make(chan error, 1)
	go func() {
		done <- get(s, data, func(_ context.Context, w Sink) error {
			close(started)
			<-finish
			return writePieces(w, data, 0)
		})
	}()
	<-started
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	dead := []string{layout.BlobName([32]byte{1}), layout.BlobName([32]byte{2}) + ".sums", "junk"}
	for _, name := range dead {
		if err := os.WriteFile(filepath.Join(dir, "tmp", name), []byte("half"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "tmp", layout.BlobName([32]byte{3}))); err != nil {
		t.Fatal(err)
	}
	testStore(t, Options{Dir: dir})
	eventually(t, "only the live file is left", func() bool {
		names, err := os.ReadDir(filepath.Join(dir, "tmp"))
		return err == nil && len(names) == 1
	})
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "mine" {
		t.Errorf("the target of a planted symlink: %q, %v", got, err)
	}
}

// audit checks a folder that no Store has open, byte for byte: whole blobs only, each with its
// content, sound sidecars, nothing else, and a usage that covers them.
func audit(t *testing.T, dir string) {
	t.Helper()
	blobs := filepath.Join(dir, "blobs")
	err := filepath.WalkDir(blobs, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if base, ok := strings.CutSuffix(path, layout.SumsSuffix); ok {
			n := len(data) - sha256.Size
			if _, ok := layout.ParseName(filepath.Base(base)); !ok || n < layout.SumsHeader ||
				sha256.Sum256(data[:n]) != digest(data[n:]) {
				return fmt.Errorf("%s: not a sound sidecar", path)
			}
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		key, ok := layout.ParseName(filepath.Base(path))
		if !ok || sha256.Sum256(data) != key || !layout.IsExact(key, &st) || path != blobFile(dir, data) {
			return fmt.Errorf("%s: not a sound blob", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if used, usage := stored(t, dir), usageOf(t, dir); used > usage {
		t.Errorf("usage says %d, %d are on disk", usage, used)
	}
}
