package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// helpMany runs with few descriptors: 5,000 blobs filled by 64 readers at once, then read again in
// any order, while the rest of the process uses what the Store leaves it. DIR LIMIT
func helpMany(args []string) error {
	limit := uint64(helperNumber(args[1]))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	s, err := tryStore(Options{Dir: args[0]})
	if err != nil {
		return err
	}
	defer s.Close()
	for len(openFDs()) < int(limit)/2 { // connections, a log, FUSE
		if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	}
	const blobs = 5000
	for round := range 2 {
		var wg sync.WaitGroup
		errs := make(chan error, 64)
		for w := range 64 {
			wg.Go(func() {
				for i := w; i < blobs; i += 64 {
					data := content(i, 10+i%50)
					fill := new(source).fill(data)
					if round > 0 {
						fill = noFill
					}
					if err := get(s, data, fill); err != nil {
						errs <- fmt.Errorf("round %d, blob %d: %w", round, i, err)
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		if err := <-errs; err != nil {
			return err
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		s.table.clear() // which leaves what the janitor is looking at
		if n := s.Stats().OpenFiles; n == 0 {
			return nil
		} else if time.Now().After(end) {
			return fmt.Errorf("%d files left open", n)
		}
	}
}

func openFDs() []os.DirEntry {
	fds, _ := os.ReadDir("/proc/self/fd")
	return fds
}

// Case 14: many blobs and few descriptors are slow, not broken.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{64, 256} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			if err := helper(t, "many", t.TempDir(), strconv.Itoa(limit)).Run(); err != nil {
				t.Error(err)
			}
		})
	}
}

// With every descriptor of the Store in use an Open waits; it ends with its ctx, with a Close
// elsewhere, or after a bound with EMFILE.
func TestAllFilesInUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := testStore(t, Options{Dir: t.TempDir(), OpenFiles: 4},
			func(l *limits) { l.WaitLimit = 300 * time.Millisecond })
		var files []*File
		for i := range 4 {
			f, err := s.Open(context.Background(), sha256.Sum256(content(i, 10)), 10,
				new(source).fill(content(i, 10)))
			must(t, err)
			files = append(files, f)
		}
		data := content(5, 10)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if _, err := s.Open(ctx, sha256.Sum256(data), 10, noFill); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a deadline: %v", err)
		}
		if err := get(s, data, noFill); !errors.Is(err, unix.EMFILE) {
			t.Errorf("after the bound: %v", err)
		}
		time.Sleep(s.lim.failureTTL)
		go func() {
			time.Sleep(50 * time.Millisecond)
			_ = files[0].Close()
		}()
		mustGet(t, s, data, new(source).fill(data))
		for _, f := range files[1:] {
			must(t, f.Close())
		}
		if n := s.Stats().OpenFiles; n > 4 {
			t.Errorf("%d files open", n)
		}
	})
}

// The table stays within its bound by closing what was used longest ago.
func TestTableBound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir, OpenFiles: 4})
	for i := range 20 {
		mustGet(t, s, content(i, 10), new(source).fill(content(i, 10)))
		mustGet(t, s, content(0, 10), new(source).fill(content(0, 10)))
	}
	if st := s.Stats(); st.OpenFiles > 4 || st.Fills != 20 {
		t.Errorf("%+v", st)
	}
	if n := openDescriptors(t, dir+"/blobs/"); n > 4 {
		t.Errorf("%d descriptors", n)
	}
	for i := range 20 { // what is on disk is found by the reader himself, also when that needs another file closed
		f, err := s.enter(waitless{context.Background()}, sha256.Sum256(content(i, 10)), 10, noFill)
		if err != nil {
			t.Fatal(err)
		}
		s.table.release(f)
	}
	mustGet(t, s, content(0, 10), noFill)
	s.table.mu.Lock()
	_, used := s.table.open.Peek(sha256.Sum256(content(0, 10)))
	s.table.mu.Unlock()
	if !used {
		t.Error("the blob in constant use was closed")
	}
}

// TestIdleFilesAreClosed: files unused for the idle time are closed; files in use are not.
func TestIdleFilesAreClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir},
		func(l *limits) { l.idle, l.tick = 50*time.Millisecond, 10*time.Millisecond })
	data := content(0, 10)
	f, err := s.Open(context.Background(), sha256.Sum256(data), 10, new(source).fill(data))
	must(t, err)
	for i := range 20 {
		mustGet(t, s, content(i+1, 10), new(source).fill(content(i+1, 10)))
	}
	eventually(t, "one file is open", func() bool { return openDescriptors(t, dir+"/blobs/") == 1 })
	must(t, errors.Join(same(f, data), f.Close()))
	eventually(t, "none is open", func() bool { return s.Stats().OpenFiles == 0 })
}

func TestOpenFilesFromLimit(t *testing.T) {
	t.Parallel()
	if n := openFiles(); n < 8 || n > 4096 {
		t.Errorf("openFiles() = %d", n)
	}
}
