package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneFlight(t *testing.T) {
	t.Parallel()
	s := testStore(t, Options{Dir: t.TempDir()})
	data := content(1, 10000)
	src := &source{delay: 50 * time.Millisecond, piece: 999}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if err := get(s, data, src.fill(data)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); src.fills.Load() != 1 || st.Fills != 1 || st.FillBytes != 10000 ||
		st.Misses+st.Hits != 32 || st.Misses < 1 {
		t.Errorf("%d fills, %+v", src.fills.Load(), st)
	}
}

// The first reader leaves: the fill goes on and the others get the blob. When all leave it goes on, too.
func TestReadersLeave(t *testing.T) {
	t.Parallel()
	for name, stay := range map[string]int{"others stay": 31, "none stays": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := testStore(t, Options{Dir: t.TempDir()})
				data := content(1, 1000)
				src := &source{delay: time.Hour}
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				begin := time.Now()
				var wg sync.WaitGroup
				wg.Go(func() {
					_, err := s.Open(ctx, sha256.Sum256(data), 1000, src.fill(data))
					if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
						t.Errorf("the leaving reader got %v after %v", err, time.Since(begin))
					}
				})
				synctest.Wait()
				for range stay {
					wg.Go(func() {
						if err := get(s, data, noFill); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				time.Sleep(2 * time.Hour)
				mustGet(t, s, data, noFill)
				if n := src.fills.Load(); n != 1 {
					t.Errorf("%d fills", n)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestFailureIsShared: a failed fill fails all its waiters, and every open within the next second
// without a new try; then the failure is forgotten.
func TestFailureIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := testStore(t, Options{Dir: t.TempDir()})
		data := content(1, 1000)
		broken := errors.New("registry on fire")
		var fills atomic.Int64
		fail := func(context.Context, Sink) error {
			fills.Add(1)
			time.Sleep(time.Minute)
			return broken
		}
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				if err := get(s, data, fail); !errors.Is(err, broken) {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		time.Sleep(900 * time.Millisecond)
		if err := get(s, data, noFill); !errors.Is(err, broken) {
			t.Errorf("within the second: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
		mustGet(t, s, data, new(source).fill(data))
		if st := s.Stats(); fills.Load() != 1 || st.Failed != 1 || st.Fills != 1 {
			t.Errorf("%d failing fills, %+v", fills.Load(), st)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Close ends the fills under way, and files that are open stay readable.
func TestClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := testStore(t, Options{Dir: dir})
	data, never := content(1, 1000), content(2, 1000)
	f, err := s.Open(context.Background(), sha256.Sum256(data), 1000, new(source).fill(data))
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() { got <- get(s, never, (&source{delay: time.Hour}).fill(never)) }()
	eventually(t, "the fill has begun", func() bool { return s.Stats().OpenFiles == 2 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Errorf("the waiting reader got %v", err)
	}
	if err := get(s, data, noFill); !errors.Is(err, ErrClosed) {
		t.Errorf("Open after Close: %v", err)
	}
	if err := errors.Join(same(f, data), f.Close()); err != nil {
		t.Errorf("an open file after Close: %v", err)
	}
	if n := openDescriptors(t, dir); n != 0 {
		t.Errorf("%d descriptors left", n)
	}
	if n := s.Stats().OpenFiles; n != 0 {
		t.Errorf("%d files left", n)
	}
}

// A fill that does not end with its ctx does not keep Close: it is told of, and what it brings
// later is dropped.
func TestCloseWithDeafFill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := testStore(t, Options{Dir: dir})
		data, release := content(1, 1000), make(chan bool)
		got := make(chan error, 1)
		go func() {
			got <- get(s, data, func(_ context.Context, w Sink) error {
				<-release
				return writePieces(w, data, 0)
			})
		}()
		synctest.Wait()
		begin := time.Now()
		if err := s.Close(); err == nil || time.Since(begin) != s.lim.leave {
			t.Errorf("Close: %v after %v", err, time.Since(begin))
		}
		close(release)
		if err := <-got; err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("the reader got %v", err)
		}
		synctest.Wait()
		if n := openDescriptors(t, dir); n != 0 {
			t.Errorf("%d descriptors left", n)
		}
	})
}

// A fill that meets the limit on descriptors, say when it dials, is tried again.
func TestFillOutOfDescriptors(t *testing.T) {
	t.Parallel()
	s := testStore(t, Options{Dir: t.TempDir()})
	data := content(1, 1000)
	tries := 0
	mustGet(t, s, data, func(_ context.Context, w Sink) error {
		if tries++; tries < 4 {
			_ = writePieces(w, data[:100], 0)
			return syscall.EMFILE
		}
		return writePieces(w, data, 0)
	})
	if tries != 4 {
		t.Errorf("%d tries", tries)
	}
}

// Fills in one process under virtual time: seeded delays and failures at every step, several
// readers that come and go. Whoever stays gets the blob or the error of a fill that ran while it
// waited or within the second before.
func TestFlightsInVirtualTime(t *testing.T) {
	t.Parallel()
	for seed := range 20 {
		synctest.Test(t, func(t *testing.T) {
			s := testStore(t, Options{Dir: t.TempDir()})
			broken := errors.New("injected")
			var running [5]atomic.Int64
			var wg sync.WaitGroup
			for reader := range 40 {
				wg.Go(func() {
					i := (reader + seed) % len(running)
					data := content(i, 3000)
					time.Sleep(time.Duration(reader*reader*(seed+3)%700) * 10 * time.Millisecond)
					ctx, cancel := context.WithTimeout(context.Background(),
						time.Duration(1+(reader*7+seed)%40)*100*time.Millisecond)
					defer cancel()
					f, err := s.Open(ctx, sha256.Sum256(data), 3000, func(_ context.Context, w Sink) error {
						if running[i].Add(1) > 1 {
							t.Error("two fills of one key at once")
						}
						defer running[i].Add(-1)
						time.Sleep(time.Duration(reader*31%17) * 100 * time.Millisecond)
						if (reader+seed)%3 == 0 {
							return broken
						}
						return writePieces(w, data, 1000)
					})
					if err == nil {
						err = errors.Join(same(f, data), f.Close())
					}
					if err != nil && !errors.Is(err, broken) && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("seed %d: reader %d: %v", seed, reader, err)
					}
				})
			}
			wg.Wait()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if n := s.Stats().OpenFiles; n != 0 {
				t.Errorf("seed %d: %d files left open", seed, n)
			}
		})
	}
}

// TestOpenWhenDone holds that a ctx that is done begins no fill, and still gets what is open.
func TestOpenWhenDone(t *testing.T) {
	t.Parallel()
	s, err := New(Options{Dir: t.TempDir(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := []byte("open")
	key := sha256.Sum256(data)
	fills := 0
	fill := func(_ context.Context, w Sink) error {
		fills++
		_, err := w.Write(data)
		return err
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if f, err := s.Open(done, key, int64(len(data)), fill); err == nil || fills != 0 {
		t.Fatalf("not there, ctx done: got %v, %v after %d fills", f, err, fills)
	}
	kept, err := s.Open(context.Background(), key, int64(len(data)), fill)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	f, err := s.Open(done, key, int64(len(data)), fill)
	if err != nil || fills != 1 {
		t.Fatalf("open, ctx done: got %v after %d fills", err, fills)
	}
	f.Close()
}
