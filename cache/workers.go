package cache

import (
	"context"
	"time"
)

// workers run flights in goroutines that stay for a moment afterwards: a fill goes deep, through
// HTTP and zstd, and each new goroutine would grow its stack for it anew, which is a tenth of the
// processor time of a small fill.
type workers chan func()

// workerStay is how long an idle goroutine stays.
const workerStay = 500 * time.Millisecond

// run hands f to an idle goroutine, or to begin, which starts a goroutine for it.
func (c workers) run(ctx context.Context, f func(), begin func(func())) {
	select {
	case c <- f:
	default:
		begin(func() { c.serve(ctx, f) })
	}
}

// serve runs f and what else comes, until nothing came for a while or ctx ends.
func (c workers) serve(ctx context.Context, f func()) {
	rest := time.NewTimer(workerStay)
	defer rest.Stop()
	for {
		f()
		rest.Reset(workerStay)
		select {
		case f = <-c:
		case <-rest.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
