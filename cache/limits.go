package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// limits are the package's numbers in one place, so that tests can shrink them.
type limits struct {
	chunk   int           // bytes hashed as one in a sidecar
	small   int64         // up to here a blob is hashed whole and may be served from memory
	memory  int64         // all blobs served from memory together
	idle    time.Duration // an open file unused for so long is closed
	tick    time.Duration // how often the janitor looks
	keep    time.Duration // how long a failure is answered without a new try
	touch   time.Duration // how old an atime may become while its blob is in use
	stopped time.Duration // after which another process's fill that writes nothing is not waited for: more than its tries take
	patient time.Duration // longest wait for a descriptor, memory or a short lock
	leave   time.Duration // longest wait of Close for fills that do not end
	at      func(string)  // nil; in tests called at each of the points where another process may come in between
	oldest  int           // eviction candidates kept while scanning; they are 64 bytes each
}

// pause is a named point in the code at which tests let others go first.
func (l *limits) pause(point string) {
	if l.at != nil {
		l.at(point)
	}
}

func defaults() limits {
	return limits{
		chunk:   1 << 20,
		small:   8 << 20,
		memory:  64 << 20,
		idle:    10 * time.Second,
		tick:    2500 * time.Millisecond,
		keep:    time.Second,
		touch:   time.Minute,
		stopped: 5 * time.Minute,
		patient: 10 * time.Second,
		leave:   3 * time.Second,
		oldest:  1 << 16,
	}
}

// errBusy says that a lock or a resource stayed taken for as long as this package waits.
var errBusy = errors.New("still busy")

// backoff waits a little longer each time, from 5 ms to 50 ms, and gives up with errBusy after limit (0: never).
type backoff struct {
	limit  time.Duration
	step   time.Duration
	waited time.Duration
}

func (b *backoff) wait(ctx context.Context) error {
	if b.limit > 0 && b.waited >= b.limit {
		return errBusy
	}
	b.step = min(50*time.Millisecond, max(5*time.Millisecond, b.step*3/2))
	t := time.NewTimer(b.step)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		b.waited += b.step
		return nil
	}
}

// warner logs the same warning at most once in a while, with the number of those it kept back.
type warner struct {
	log   *slog.Logger
	every time.Duration

	mu   sync.Mutex // guards said
	said map[string]*warning
}

type warning struct {
	at   time.Time
	kept int
}

func (w *warner) warn(msg string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said == nil {
		w.said = make(map[string]*warning)
	}
	last := w.said[msg]
	if last == nil {
		last = &warning{}
		w.said[msg] = last
	} else if time.Since(last.at) < w.every {
		last.kept++
		return
	}
	w.log.Warn(msg, append(args, "suppressed", last.kept)...)
	last.at, last.kept = time.Now(), 0
}
