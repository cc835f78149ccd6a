package registry

import (
	"context"
	"errors"
	"sync"
	"time"
)

// breaker keeps requests away from a host that fails. After some failures in a row the host counts
// as down: then at most one request an interval goes out, and all that wait share its result.
type breaker struct {
	downAfter int
	interval  time.Duration
	spare     time.Duration // in place of interval where another host can be asked

	mu     sync.Mutex // guards the fields below
	failed int        // in a row
	last   time.Time  // of the last failure
	probe  *probe     // under way, nil when none
}

// probe is the one request to a host that is down.
type probe struct {
	done chan struct{} // closed when err is set
	err  error         // nil: the host answered, or nothing was learnt
}

// errDown spares a host that just failed a request that another one can answer.
var errDown = errors.New("it failed a moment ago and is not asked again yet")

// allow waits until a request may be sent. With a probe the caller must send it and call report.
// The error is the context's, or the failure of another caller's probe.
func (g *breaker) allow(ctx context.Context) (*probe, error) {
	for {
		g.mu.Lock()
		if g.failed < g.downAfter {
			g.mu.Unlock()
			return nil, nil
		}
		p := g.probe
		wait := g.interval - time.Since(g.last)
		if askedOf(ctx).more && (p != nil || g.spare > time.Since(g.last)) {
			g.mu.Unlock()
			return nil, errDown // the next endpoint is asked sooner
		}
		if p == nil && wait <= 0 {
			p = &probe{done: make(chan struct{})}
			g.probe = p
			g.mu.Unlock()
			return p, nil
		}
		g.mu.Unlock()
		if p != nil {
			select {
			case <-p.done:
				if p.err != nil {
					return nil, p.err
				}
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// down says that the host is down.
func (g *breaker) down() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed >= g.downAfter
}

// report notes the result of a request. learnt is false when it says nothing of the host: the
// caller went away.
func (g *breaker) report(p *probe, err error, learnt bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if learnt && err == nil {
		g.failed = 0
	} else if learnt {
		g.failed++
		g.last = time.Now()
	}
	if p == nil {
		return
	}
	if learnt {
		p.err = err
	}
	g.probe = nil
	close(p.done)
}
