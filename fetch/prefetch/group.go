package prefetch

import (
	"context"
	"sync"
)

// group starts goroutines until it is cancelled, and waits for them.
type group struct {
	ctx    context.Context
	stop   context.CancelFunc
	mu     sync.Mutex // held to start a goroutine, so that none starts during cancel
	active sync.WaitGroup
}

func newGroup() *group {
	g := new(group)
	g.ctx, g.stop = context.WithCancel(context.Background())
	return g
}

// start runs f in a goroutine. It returns false, and does not, once the group is cancelled.
func (g *group) start(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ctx.Err() != nil {
		return false
	}
	g.active.Go(f)
	return true
}

// cancel ends the context of the goroutines. No other starts after it.
func (g *group) cancel() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop()
}

// wait waits for all goroutines. The group must be cancelled.
func (g *group) wait() { g.active.Wait() }
