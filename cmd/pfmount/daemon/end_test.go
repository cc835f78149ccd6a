package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// fakeServer is a mount whose end can be hindered.
type fakeServer struct {
	busy    bool // plain unmounts fail
	inUse   bool // files stay open after an unmount
	hanging chan struct{}

	mu             sync.Mutex // guards calls
	calls          []string
	done, detached chan struct{}
}

func (s *fakeServer) call(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, name)
}

func (s *fakeServer) Done() <-chan struct{}     { return s.done }
func (s *fakeServer) Detached() <-chan struct{} { return s.detached }
func (s *fakeServer) Mounted() *mounts.Mount    { return &mounts.Mount{ID: -1} }

func (s *fakeServer) StopReads(grace time.Duration) <-chan struct{} {
	s.call("stop reads")
	drained := make(chan struct{})
	time.AfterFunc(grace, func() { close(drained) })
	return drained
}

func (s *fakeServer) Unmount() error {
	s.call("unmount")
	if s.hanging != nil {
		<-s.hanging
	}
	if s.busy {
		return mounts.ErrBusy
	}
	if !s.inUse {
		close(s.done)
	}
	return nil
}

func (s *fakeServer) Detach() error {
	s.call("detach")
	return nil
}

// TestEnd: each end takes the time that its hindrance is given, and no more.
func TestEnd(t *testing.T) {
	t.Parallel()
	signalled := func(_ *ending, _ *fakeServer, cancel func()) { cancel() }
	for name, tt := range map[string]struct {
		busy, inUse bool // see fakeServer
		begin       func(e *ending, s *fakeServer, cancel func())
		took        time.Duration
		calls       []string
	}{
		"unmounted": {begin: func(_ *ending, s *fakeServer, _ func()) { close(s.done) }},
		"a signal":  {begin: signalled, calls: []string{"stop prefetch", "stop reads", "unmount"}},
		"waiting reads": {
			busy: true, begin: signalled, took: readGrace,
			calls: []string{"stop prefetch", "stop reads", "unmount", "unmount", "detach"},
		},
		"open files": {
			inUse: true, begin: signalled, took: lastGrace,
			calls: []string{"stop prefetch", "stop reads", "unmount"},
		},
		"a second signal": {
			busy: true, took: time.Second,
			begin: func(e *ending, _ *fakeServer, cancel func()) {
				cancel()
				time.AfterFunc(time.Second, func() { close(e.second) })
			},
			calls: []string{"stop prefetch", "stop reads", "unmount", "detach"},
		},
		"detached, then a signal": {
			inUse: true, took: 2 * time.Second,
			begin: func(_ *ending, s *fakeServer, cancel func()) {
				close(s.detached)
				time.AfterFunc(2*time.Second, cancel)
			},
			calls: []string{"stop prefetch", "stop reads", "unmount"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &fakeServer{busy: tt.busy, inUse: tt.inUse}
				e := newTestEnding(s)
				e.exit = func() { t.Error("the process was ended") }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begin := time.Now()
				tt.begin(e, s, cancel)
				err := e.wait(ctx)
				if took := time.Since(begin); err != nil || took != tt.took {
					t.Errorf("%v after %v, want %v", err, took, tt.took)
				}
				if !slices.Equal(s.calls, tt.calls) {
					t.Errorf("did %q, want %q", s.calls, tt.calls)
				}
			})
		})
	}
}

func newTestEnding(s *fakeServer) *ending {
	s.done, s.detached = make(chan struct{}), make(chan struct{})
	return &ending{
		server: s, mountpoint: "/none", log: slog.New(slog.DiscardHandler),
		second:       make(chan struct{}),
		stopPrefetch: func() { s.call("stop prefetch") },
		removeSocket: func() { s.call("remove socket") },
	}
}

// TestEndHangs: where the unmount never returns, the process is ended in time.
func TestEndHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{hanging: make(chan struct{})}
		e := newTestEnding(s)
		begin := time.Now()
		var took time.Duration
		e.exit = func() {
			took = time.Since(begin)
			close(s.hanging)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.wait(ctx); err != nil {
			t.Error(err)
		}
		if took == 0 || took >= EndLimit {
			t.Errorf("ended after %v, want less than %v", took, EndLimit)
		}
		if want := []string{"stop prefetch", "stop reads", "unmount",
			"remove socket"}; !slices.Equal(s.calls, want) {
			t.Errorf("did %q, want %q", s.calls, want)
		}
	})
}

// TestLeave: after a second signal the mount is detached and its socket removed, whatever hangs.
func TestLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{hanging: make(chan struct{})}
		e := newTestEnding(s)
		e.exit = func() { t.Error("ended twice") }
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		over := make(chan error, 1)
		go func() { over <- e.wait(ctx) }()
		synctest.Wait() // it hangs in its unmount
		begin := time.Now()
		e.leave()
		if took := time.Since(begin); took != secondGrace {
			t.Errorf("took %v, want %v", took, secondGrace)
		}
		want := []string{"stop prefetch", "stop reads", "unmount", "detach", "remove socket"}
		if !slices.Equal(s.calls, want) {
			t.Errorf("did %q, want %q", s.calls, want)
		}
		close(s.hanging)
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// TestEndFails: a mount that cannot be detached either is an error of the mount.
func TestEndFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := newTestEnding(&fakeServer{busy: true})
		e.server = stuckServer{e.server.(*fakeServer)}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.wait(ctx); !errors.Is(err, fault.ErrMount) || !errors.Is(err, mounts.ErrBusy) {
			t.Errorf("got %v", err)
		}
	})
}

// stuckServer is a mount that cannot be detached.
type stuckServer struct{ *fakeServer }

func (stuckServer) Detach() error { return mounts.ErrBusy }
