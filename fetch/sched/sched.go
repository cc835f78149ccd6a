// Package sched decides which request goes to the network next: those of readers, then the
// readahead, then the background. What waits can be raised at any time. Requests that no reader
// waits for leave slots free, give way, and pause after failures.
//
// It does not know what is requested, and sends nothing.
package sched

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// ErrGaveWay ends the wait of a request that no reader waits for and that is not admitted soon.
var ErrGaveWay = errors.New("it gave way to what is waited for")

// maxQueue is how long a request that no reader waits for stays in the queue. It may keep readers
// of other processes from the blob all the time.
const maxQueue = 2 * time.Second

// Limiter admits requests to hosts: at most slots at a time to each, the most urgent first, equals
// in the order in which they came. Requests that no reader waits for leave slots free: those of the
// background take half of them. They also pause: after a failure the background does, after a
// second one in a row, or where the server asks for it, the readahead does, too. Requests that fail
// together are one failure, and an answer ends the pause of the readahead.
type Limiter struct {
	slots      int
	nonReaders int // most requests under way that are not a Reader's; 0: slots

	mu     sync.Mutex // guards the fields below, and HostSlots
	queue  []*waiter
	busy   [Background + 1]int       // requests under way, by the class in which they were admitted
	until  [Background + 1]time.Time // a class waits until then
	asked  time.Time                 // the server asked to wait until then
	failed int                       // failures in a row
}

// NewLimiter returns a limiter of so many slots a host. At most nonReaders requests that no reader
// waits for are under way at a time, to all hosts; 0 means slots.
func NewLimiter(slots, nonReaders int) *Limiter {
	return &Limiter{slots: slots, nonReaders: nonReaders}
}

// HostSlots counts the requests under way at a host. It belongs to one limiter; the zero value is
// ready for use.
type HostSlots struct{ used int }

// waiter is a request that waits or is under way.
type waiter struct {
	host  *HostSlots // nil: it waits for the limiter to be idle, and takes no slot
	want  *Priority
	class Class         // in which it was admitted
	ready chan struct{} // closed when it is admitted
}

// Acquire waits for a slot at a host. It ends with the context, or with ErrGaveWay when the request
// is not a Reader's for 2 seconds. The returned function gives the slot back; only its first call
// counts.
func (l *Limiter) Acquire(ctx context.Context, host *HostSlots, want *Priority) (func(), error) {
	w := &waiter{host: host, want: want, ready: make(chan struct{})}
	want.queue.Store(l) // before it is queued: Raise changes the class, then looks for the queue
	l.mu.Lock()
	l.queue = append(l.queue, w)
	l.admit()
	l.mu.Unlock()
	var late <-chan time.Time
	if host != nil && want.Class() != Reader {
		timer := time.NewTimer(maxQueue)
		defer timer.Stop()
		late = timer.C
	}
	for {
		select {
		case <-w.ready:
			return sync.OnceFunc(func() { l.remove(w) }), nil
		case <-ctx.Done():
			l.remove(w)
			return nil, context.Cause(ctx)
		case <-late:
			if want.Class() != Reader {
				l.remove(w)
				return nil, ErrGaveWay
			}
			late = nil
		}
	}
}

// WaitIdle waits for a moment in which nothing more urgent than the background is under way or
// waits, and the background does not pause.
func (l *Limiter) WaitIdle(ctx context.Context) error {
	release, err := l.Acquire(ctx, nil, NewPriority(Background))
	if err == nil {
		release()
	}
	return err
}

// Waiting returns how many requests are in the queue.
func (l *Limiter) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// remove takes out a request, whether it waits or is under way.
func (l *Limiter) remove(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queue, w); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	} else if w.host != nil {
		w.host.used--
		l.busy[w.class]--
	}
	l.admit()
}

// wake admits the requests that may go now.
func (l *Limiter) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.admit()
}

// admit admits as many requests as may go, the most urgent first. Called with mu held.
func (l *Limiter) admit() {
	now := time.Now()
	for {
		best := -1
		for i, w := range l.queue {
			if l.admissible(w, now) && (best < 0 || w.want.Class() < l.queue[best].want.Class()) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		w := l.queue[best]
		l.queue = slices.Delete(l.queue, best, best+1)
		w.class = w.want.Class()
		if w.host != nil {
			w.host.used++
			l.busy[w.class]++
		}
		close(w.ready)
	}
}

// admissible says that a request may go now. Called with mu held.
func (l *Limiter) admissible(w *waiter, now time.Time) bool {
	class := w.want.Class()
	switch {
	case now.Before(l.until[class]):
		return false
	case w.host == nil:
		urgent := func(o *waiter) bool { return o.want.Class() < Background }
		return l.busy[Reader]+l.busy[Ahead] == 0 && !slices.ContainsFunc(l.queue, urgent)
	case l.nonReaders > 0 && class > Reader && l.busy[Ahead]+l.busy[Background] >= l.nonReaders:
		return false
	case class == Background && l.busy[Background] >= max(1, l.slots/2):
		return false
	}
	return w.host.used < l.slots
}
