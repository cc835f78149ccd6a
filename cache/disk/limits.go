package disk

import (
	"log/slog"
	"sync"
	"time"
)

// Limits are the package's numbers in one place, so that tests can shrink them.
type Limits struct {
	Chunk      int           // bytes hashed as one in a sidecar
	Small      int64         // up to here a blob is hashed whole
	AtimeGrain time.Duration // how old an atime may become while its blob is in use
	Stopped    time.Duration // longest wait for another process's fill that writes nothing
	WaitLimit  time.Duration // longest wait for a descriptor or a short lock
	Candidates int           // blobs kept for eviction while scanning, 64 bytes each
	At         func(string)  // nil; in tests called where another process may come in between
}

// DefaultLimits returns the limits of a Dir without any of its own.
func DefaultLimits() Limits {
	return Limits{
		Chunk:      1 << 20,
		Small:      8 << 20,
		AtimeGrain: time.Minute,
		Stopped:    5 * time.Minute,
		WaitLimit:  10 * time.Second,
		Candidates: 1 << 16,
	}
}

// pause is a named point in the code at which tests let others go first.
func (l *Limits) pause(point string) {
	if l.At != nil {
		l.At(point)
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
