package cache

import (
	"context"
	"crypto/sha256"
	"testing"
	"testing/synctest"
	"time"
)

// waitless is a context under which a wait panics.
type waitless struct{ context.Context }

func (waitless) Done() <-chan struct{} { panic("waited") }

// Get finds what is open and what is on disk, and waits for nothing else.
func TestGet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := testStore(t, Options{Dir: t.TempDir()})
		data := content(1, 1000)
		key := sha256.Sum256(data)
		found := func(want bool) {
			t.Helper()
			f, ok := s.Get(waitless{context.Background()}, key, 1000, noFill)
			if ok != want {
				t.Fatalf("Get: %v, want %v", ok, want)
			}
			if ok {
				if err := same(f, data); err != nil {
					t.Error(err)
				}
				_ = f.Close()
			}
		}
		found(false)
		if st := s.Stats(); st.Misses != 0 || st.OpenFiles != 0 {
			t.Errorf("after a Get that found nothing: %+v", st)
		}
		done := make(chan error)
		go func() { done <- get(s, data, (&source{delay: time.Hour}).fill(data)) }()
		synctest.Wait()
		found(false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		found(true)
		clearTable(s)
		found(true)
		if _, ok := s.Get(context.Background(), key, 999, noFill); ok {
			t.Error("Get of another length found the blob")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		found(false)
	})
}

// An Open that meets a Get on its way to the disk does not take the Get's answer for its own.
func TestOpenMeetsGet(t *testing.T) {
	t.Parallel()
	s := testStore(t, Options{Dir: t.TempDir()})
	data := content(1, 1000)
	key := sha256.Sum256(data)
	_, fl, first, err := s.join(context.Background(), key, false)
	if err != nil || !first {
		t.Fatal(first, err)
	}
	done := make(chan error)
	go func() { done <- get(s, data, new(source).fill(data)) }()
	eventually(t, "Open waits", func() bool {
		s.table.mu.Lock()
		defer s.table.mu.Unlock()
		return fl.readers == 2
	})
	s.land(fl, key, nil, false, errNothing)
	s.life.wg.Done()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Fills != 1 || st.Misses != 1 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}
