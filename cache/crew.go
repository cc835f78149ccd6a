package cache

import (
	"context"
	"time"
)

// crew runs flights in goroutines that stay for a moment afterwards: a fill goes deep, through HTTP and zstd, and each new
// goroutine would grow its stack for it anew, which is a tenth of the processor time of a small fill.
type crew chan func()

// crewStay is how long an idle goroutine stays.
const crewStay = 500 * time.Millisecond

// run hands f to who is idle, or to begin, which starts a goroutine for it.
func (c crew) run(ctx context.Context, f func(), begin func(func())) {
	select {
	case c <- f:
	default:
		begin(func() { c.serve(ctx, f) })
	}
}

// serve runs f and what else comes, until nothing came for a while or ctx ends.
func (c crew) serve(ctx context.Context, f func()) {
	rest := time.NewTimer(crewStay)
	defer rest.Stop()
	for {
		f()
		rest.Reset(crewStay)
		select {
		case f = <-c:
		case <-rest.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
