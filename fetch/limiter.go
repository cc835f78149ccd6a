package fetch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// How long requests that nobody waits for keep away after a failure: the first pause, and the longest. A Retry-After
// counts when it is longer.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// patience is how long a request that nobody waits for stays in the queue. It may keep readers of other processes from the
// blob all the time.
const patience = 2 * time.Second

// limiter admits requests to the hosts of an image: at most slots at a time to each, the most urgent first, equals in
// the order in which they came. Requests that nobody waits for leave room: those of the background take half of the
// slots. They also keep away from trouble: after a failure the background pauses, after a second one in a row, or where
// the server asks for it, the readahead does, too. Requests that fail together are one failure, and an answer ends the pause
// of the readahead.
type limiter struct {
	slots  int
	lesser int // most requests under way that are not a Reader's; 0: slots

	mu     sync.Mutex // guards the fields below
	queue  []*seat
	busy   [Background + 1]int       // requests under way, by the class in which they were admitted
	until  [Background + 1]time.Time // a class waits until then
	asked  time.Time                 // the server asked to wait until then
	failed int                       // failures in a row
}

// seat is a request that waits or is under way.
type seat struct {
	at    *place // nil: it waits for a lull, and takes no slot
	want  *Urgency
	class Class         // in which it was admitted
	ready chan struct{} // closed when it is admitted
}

// place counts the requests under way at a host. It is guarded by limiter.mu.
type place struct{ used int }

// take waits for a slot, a request that nobody waits for only for a while. The returned function gives it back, once.
func (l *limiter) take(ctx context.Context, at *place, want *Urgency) (func(), error) {
	s := &seat{at: at, want: want, ready: make(chan struct{})}
	want.line.Store(l) // before it is in the queue: who raises it first changes the class, then looks here
	l.mu.Lock()
	l.queue = append(l.queue, s)
	l.admit()
	l.mu.Unlock()
	var late <-chan time.Time
	if at != nil && want.Class() != Reader {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	for {
		select {
		case <-s.ready:
			return sync.OnceFunc(func() { l.leave(s) }), nil
		case <-ctx.Done():
			l.leave(s)
			return nil, context.Cause(ctx)
		case <-late:
			if want.Class() != Reader {
				l.leave(s)
				return nil, ErrGaveWay
			}
			late = nil
		}
	}
}

// lull waits for a moment in which nothing more urgent than the background is under way or waits, and none is to be
// kept away from trouble.
func (l *limiter) lull(ctx context.Context) error {
	leave, err := l.take(ctx, nil, NewUrgency(Background))
	if err == nil {
		leave()
	}
	return err
}

// leave takes a seat out, whether it waits or is under way.
func (l *limiter) leave(s *seat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.queue, s); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	} else if s.at != nil {
		s.at.used--
		l.busy[s.class]--
	}
	l.admit()
}

// look admits who may go now.
func (l *limiter) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.admit()
}

// admit lets in as many as may go, the most urgent first. Called with mu held.
func (l *limiter) admit() {
	now := time.Now()
	for {
		best := -1
		for i, s := range l.queue {
			if l.may(s, now) && (best < 0 || s.want.Class() < l.queue[best].want.Class()) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		s := l.queue[best]
		l.queue = slices.Delete(l.queue, best, best+1)
		s.class = s.want.Class()
		if s.at != nil {
			s.at.used++
			l.busy[s.class]++
		}
		close(s.ready)
	}
}

// may says that a seat can be admitted now. Called with mu held.
func (l *limiter) may(s *seat, now time.Time) bool {
	class := s.want.Class()
	switch {
	case now.Before(l.until[class]):
		return false
	case s.at == nil:
		return l.busy[Reader]+l.busy[Ahead] == 0 && !slices.ContainsFunc(l.queue, func(o *seat) bool { return o.want.Class() < Background })
	case l.lesser > 0 && class > Reader && l.busy[Ahead]+l.busy[Background] >= l.lesser:
		return false
	case class == Background && l.busy[Background] >= max(1, l.slots/2):
		return false
	}
	return s.at.used < l.slots
}

// note learns from an answer how the link does. wait is what the server asks for, 0 when it does not.
func (l *limiter) note(failed bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	paused := now.Before(l.until[Background])
	switch {
	case !failed:
		l.failed = 0
		if l.until[Ahead].After(l.asked) {
			l.until[Ahead] = l.asked
			l.admit()
		}
		return
	case wait > 0:
		l.asked = later(l.asked, now.Add(min(wait, lastPause)))
		l.until[Ahead] = later(l.until[Ahead], l.asked)
		l.until[Background] = later(l.until[Background], l.asked)
	case paused:
		return // it began before, or beside, the failure that is known
	default:
		l.until[Background] = now.Add(min(firstPause<<min(l.failed, 8), lastPause))
		if l.failed > 0 {
			l.until[Ahead] = l.until[Background]
		}
	}
	if !paused {
		l.failed++
	}
	for _, until := range l.until[Ahead:] {
		if until.After(now) {
			time.AfterFunc(until.Sub(now), l.look)
		}
	}
}

// later is the later of two moments.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Lull waits until nobody who reads, or is about to, has a request under way or waiting, and the last failure is some
// time past: then a fetch in the background disturbs nobody. Where no network is in use it does not wait.
func (im *Image) Lull(ctx context.Context) error {
	if reg, ok := im.src.(*registry); ok {
		return reg.limiter.lull(ctx)
	}
	return ctx.Err()
}
