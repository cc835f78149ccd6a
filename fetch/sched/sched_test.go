package sched_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pfmount/pfmount/fetch/sched"
)

// host is a limiter and one of its hosts, in a bubble of synctest.
type host struct {
	t *testing.T
	*sched.Limiter
	slots    *sched.HostSlots
	admitted chan string
}

func newHost(t *testing.T, slots int) *host {
	return &host{t, sched.NewLimiter(slots, 0), new(sched.HostSlots), make(chan string, 10)}
}

// beside returns another host of the same limiter.
func (h *host) beside() *host {
	return &host{h.t, h.Limiter, new(sched.HostSlots), make(chan string, 10)}
}

// enqueue lets a named request wait. It gives its slot back as soon as it is admitted.
func (h *host) enqueue(name string, p *sched.Priority) {
	go func() {
		release, err := h.Acquire(h.t.Context(), h.slots, p)
		if err != nil {
			h.t.Errorf("%s: %v", name, err)
			return
		}
		h.admitted <- name
		release()
	}()
	synctest.Wait()
}

// acquire takes a slot, which must be free.
func (h *host) acquire(c sched.Class) (release func()) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Nanosecond)
	defer cancel()
	release, err := h.Acquire(ctx, h.slots, sched.NewPriority(c))
	if err != nil {
		h.t.Fatalf("class %d is not admitted: %v", c, err)
	}
	return release
}

// admits says that a request of a class would be admitted now.
func (h *host) admits(c sched.Class) bool {
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Nanosecond)
	defer cancel()
	release, err := h.Acquire(ctx, h.slots, sched.NewPriority(c))
	if err == nil {
		release()
	}
	return err == nil
}

// admitsClasses says which of readers, readahead and background would be admitted now.
func (h *host) admitsClasses() [3]bool {
	return [3]bool{h.admits(sched.Reader), h.admits(sched.Ahead), h.admits(sched.Background)}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1)
		release := h.acquire(sched.Reader)
		raised := sched.NewPriority(sched.Background)
		h.enqueue("background", sched.NewPriority(sched.Background))
		h.enqueue("raised", raised)
		h.enqueue("ahead", sched.NewPriority(sched.Ahead))
		h.enqueue("first reader", new(sched.Priority))
		h.enqueue("second reader", new(sched.Priority))
		if n := h.Waiting(); n != 5 {
			t.Errorf("%d wait, want 5", n)
		}
		raised.Raise(sched.Reader)
		raised.Raise(sched.Background) // it never sinks
		release()
		release() // twice is once
		synctest.Wait()
		close(h.admitted)
		var got []string
		for name := range h.admitted {
			got = append(got, name)
		}
		want := []string{"raised", "first reader", "second reader", "ahead", "background"}
		if !slices.Equal(got, want) {
			t.Errorf("admitted %q, want %q", got, want)
		}
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one := newHost(t, 4)
		other := one.beside()
		var held []func()
		for range 2 {
			held = append(held, one.acquire(sched.Background))
		}
		if one.admits(sched.Background) || other.admits(sched.Background) {
			t.Error("the background takes more than half of the slots")
		}
		for range 2 {
			held = append(held, one.acquire(sched.Ahead))
		}
		if one.admits(sched.Reader) {
			t.Error("a host has more requests than slots")
		}
		held = append(held, other.acquire(sched.Reader))
		for _, release := range held {
			release()
		}
		for range 4 { // nothing is left behind
			defer one.acquire(sched.Reader)()
			defer other.acquire(sched.Reader)()
		}
		if n := one.Waiting(); n != 0 {
			t.Errorf("%d are left in the queue", n)
		}
	})
}

// TestNonReaders: what no reader waits for leaves a slot to readers, at any host.
func TestNonReaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 0)
		h.Limiter = sched.NewLimiter(3, 2)
		other := h.beside()
		defer h.acquire(sched.Ahead)()
		defer h.acquire(sched.Background)()
		if got := other.admitsClasses(); got != [3]bool{true, false, false} {
			t.Errorf("reader, ahead, background are admitted: %v", got)
		}
	})
}

// TestFailures: the background pauses at the first failure, the readahead at the second or when the
// server asks for it, readers never; a raised request goes at once.
func TestFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		waits []time.Duration // of failures, each with its Retry-After
		want  [3]bool
	}{
		{"none", nil, [3]bool{true, true, true}},
		{"one", []time.Duration{0}, [3]bool{true, true, false}},
		{"two", []time.Duration{0, 0}, [3]bool{true, false, false}},
		{"many", make([]time.Duration, 20), [3]bool{true, false, false}},
		{"limited", []time.Duration{time.Minute}, [3]bool{true, false, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t, 4)
				for i, wait := range tt.waits {
					if i > 0 {
						time.Sleep(30 * time.Second) // the pause before is over
					}
					h.Report(true, wait)
				}
				if got := h.admitsClasses(); got != tt.want {
					t.Errorf("reader, ahead, background are admitted: %v, want %v", got, tt.want)
				}
				if tt.want[2] {
					return
				}
				p := sched.NewPriority(sched.Background)
				h.enqueue("raised", p)
				if p.Raise(sched.Reader); h.Waiting() != 0 {
					t.Error("raised, it waits on")
				}
				if time.Sleep(30 * time.Second); h.admitsClasses() != [3]bool{true, true, true} {
					t.Error("it pauses for more than 30 s")
				}
			})
		})
	}
}

// TestPauseEnds: what waits for the end of a pause is admitted by it.
func TestPauseEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1)
		h.Report(true, 0)
		begun := time.Now()
		h.enqueue("background", sched.NewPriority(sched.Background))
		<-h.admitted
		if d := time.Since(begun); d != time.Second {
			t.Errorf("admitted after %v, want 1s", d)
		}
	})
}

// TestFailTogether: what fails together pauses as one failure does, an answer lets the readahead go
// on, and what the server asked for holds whatever comes after it.
func TestFailTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 64)
		check := func(what string, ahead, background bool) {
			t.Helper()
			if got := h.admitsClasses(); got != [3]bool{true, ahead, background} {
				t.Errorf("%s: reader, ahead, background are admitted: %v", what, got)
			}
		}
		for range 32 {
			h.Report(true, 0)
		}
		check("32 failures at once", true, false)
		time.Sleep(time.Second)
		h.Report(true, 0)
		check("a second failure", false, false)
		h.Report(false, 0)
		check("an answer", true, false)
		for range 16 {
			h.Report(true, 20*time.Second)
		}
		h.Report(true, 0)
		h.Report(true, 2*time.Second)
		h.Report(false, 0)
		time.Sleep(19 * time.Second)
		check("19 s after a Retry-After of 20 s", false, false)
		time.Sleep(time.Second)
		check("20 s after a Retry-After of 20 s", true, true)
		h.Report(true, 0)
		time.Sleep(2 * time.Second)
		check("16 answers at once were one failure", true, true)
	})
}

// TestWaitIdle: it waits for readers and readahead, not for the background, and ends with its
// context.
func TestWaitIdle(t *testing.T) {
	t.Parallel()
	for c, waits := range map[sched.Class]bool{
		sched.Reader: true, sched.Ahead: true, sched.Background: false,
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t, 4)
			release := h.acquire(c)
			ctx, cancel := context.WithCancelCause(t.Context())
			given, idle := errors.New("given up"), make(chan error, 2)
			go func() { idle <- h.WaitIdle(ctx) }()
			synctest.Wait()
			if got := len(idle) == 0; got != waits {
				t.Errorf("class %d: it waits: %v, want %v", c, got, waits)
			}
			release()
			if err := <-idle; err != nil {
				t.Error(err)
			}
			defer h.acquire(sched.Reader)()
			go func() { idle <- h.WaitIdle(ctx) }()
			synctest.Wait()
			cancel(given)
			if err := <-idle; err != given {
				t.Errorf("got %v, want %v", err, given)
			}
		})
	}
}

// TestGivesWay: a request that no reader waits for leaves the queue after 2 s, since it may keep
// others from the blob. One that a reader waits for stays, also when it was raised meanwhile.
func TestGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, 1)
		release := h.acquire(sched.Reader)
		for _, c := range []sched.Class{sched.Ahead, sched.Background} {
			begun := time.Now()
			_, err := h.Acquire(t.Context(), h.slots, sched.NewPriority(c))
			d := time.Since(begun)
			if !errors.Is(err, sched.ErrGaveWay) || d != 2*time.Second {
				t.Errorf("class %d: %v after %v, want %v", c, err, d, sched.ErrGaveWay)
			}
		}
		raised := sched.NewPriority(sched.Ahead)
		h.enqueue("raised", raised)
		time.Sleep(time.Second)
		raised.Raise(sched.Reader)
		time.Sleep(20 * time.Second)
		release()
		<-h.admitted
		if synctest.Wait(); !h.admits(sched.Reader) || h.Waiting() != 0 {
			t.Errorf("something is left behind; %d in the queue", h.Waiting())
		}
	})
}

// TestPriority: it only rises.
func TestPriority(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ from, to, want sched.Class }{
		{sched.Background, sched.Ahead, sched.Ahead},
		{sched.Ahead, sched.Reader, sched.Reader},
		{sched.Reader, sched.Background, sched.Reader},
		{sched.Ahead, sched.Background, sched.Ahead},
	} {
		p := sched.NewPriority(tt.from)
		p.Raise(tt.to)
		if got := p.Class(); got != tt.want {
			t.Errorf("%d raised to %d is %d, want %d", tt.from, tt.to, got, tt.want)
		}
	}
	if new(sched.Priority).Class() != sched.Reader {
		t.Error("the zero value is not a Reader's")
	}
}
