package layout

import (
	"context"
	"errors"
	"time"
)

// ErrBusy says that a lock or a resource stayed taken for as long as the cache waits.
var ErrBusy = errors.New("still busy")

// Backoff waits a little longer each time, from 5 ms to 50 ms, and gives up with ErrBusy after
// Limit (0: never).
type Backoff struct {
	Limit  time.Duration
	step   time.Duration
	Waited time.Duration
}

// Wait waits once, at most until ctx is done.
func (b *Backoff) Wait(ctx context.Context) error {
	if b.Limit > 0 && b.Waited >= b.Limit {
		return ErrBusy
	}
	b.step = min(50*time.Millisecond, max(5*time.Millisecond, b.step*3/2))
	t := time.NewTimer(b.step)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		b.Waited += b.step
		return nil
	}
}
