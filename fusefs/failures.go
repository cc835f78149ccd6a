package fusefs

import (
	"context"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

const (
	quietTime = time.Second // a row is logged at most once in it
	maxQuiet  = 4096        // rows remembered as logged; beyond, all are forgotten
)

// failures logs failed calls: one line names image, path, digest and cause, but 200 readers of a
// failing blob, or one that tries in a loop, make one line a second.
type failures struct {
	log   *slog.Logger
	image string

	// mu guards logged.
	mu     sync.Mutex
	logged map[pfimg.Row]time.Time
}

// failure is one failed call.
type failure struct {
	op     string
	row    pfimg.Row
	path   func(pfimg.Row) string // asked only when there is a line to write
	digest pfimg.Digest
	errno  syscall.Errno
	err    error
}

func newFailures(log *slog.Logger, image string) *failures {
	return &failures{log: log, image: image, logged: make(map[pfimg.Row]time.Time)}
}

func (f *failures) report(x failure) {
	level := slog.LevelError
	if x.errno == syscall.EINTR { // its reader was killed
		level = slog.LevelDebug
	} else if !f.due(x.row, time.Now()) {
		return
	}
	f.log.Log(context.Background(), level, x.op+" failed", "image", f.image,
		"path", x.path(x.row), "digest", x.digest.String(), "errno", x.errno.Error(), "err", x.err)
}

// due reports whether r may be logged at the time now, and notes that it was.
func (f *failures) due(r pfimg.Row, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.logged[r]; ok && now.Sub(t) < quietTime {
		return false
	}
	if len(f.logged) >= maxQuiet {
		clear(f.logged)
	}
	f.logged[r] = now
	return true
}
