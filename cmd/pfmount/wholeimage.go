package main

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// Bounds of the background.
const (
	backWorkers = 8 // blobs that it fetches at once
	backFails   = 3 // failures in a row after which it gives up
)

var errNoRoom = errors.New("the cache has no room for more than what is read")

// fetchAll fetches blobs while nobody reads. It gives up when the cache is as full as it may get by this, and when the
// link fails: each failure has made it pause already (fetch.Image.Lull).
func (p *prefetcher) fetchAll(list iter.Seq2[pfimg.Digest, int64]) {
	p.start(func() {
		ctx, giveUp := context.WithCancelCause(p.ctx)
		defer giveUp(nil)
		var workers errgroup.Group
		workers.SetLimit(min(backWorkers, max(1, p.s.store.Fills()/4)))
		var failed atomic.Int32
		for d := range list {
			if ctx.Err() != nil {
				break
			}
			workers.Go(func() error {
				err := p.fetchQuietly(ctx, d)
				for errors.Is(err, sched.ErrGaveWay) && ctx.Err() == nil {
					err = p.fetchQuietly(ctx, d)
				}
				switch {
				case err == nil:
					failed.Store(0)
				case errors.Is(err, errNoRoom), linkFailed(err) && failed.Add(1) >= backFails:
					giveUp(err)
				}
				return nil
			})
		}
		_ = workers.Wait()
		if ctx.Err() != nil && p.ctx.Err() == nil {
			p.s.log.Info("the rest of the image is fetched as it is read", "image", p.s.image.Ref().String(), "cause", context.Cause(ctx))
		}
	})
}

// linkFailed says that a failure is the link's, and not one blob's.
func linkFailed(err error) bool {
	for _, other := range []error{artifact.ErrMissing, pfimg.ErrIntegrity, cache.ErrSize, cache.ErrDamaged, cache.ErrElsewhere} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// fetchQuietly fetches a blob in a moment in which it disturbs nobody.
func (p *prefetcher) fetchQuietly(ctx context.Context, d pfimg.Digest) error {
	wire, _, stored := p.s.image.Wire(d)
	size, _ := p.s.index.Size(d)
	if !stored || p.s.store.Has(d) {
		return nil
	}
	bytes := max(size, wire, 0)
	defer p.coming.Add(-bytes)
	if p.s.store.Room() < p.coming.Add(bytes)+p.share {
		return errNoRoom
	}
	if err := p.s.image.WaitIdle(ctx); err != nil {
		return err
	}
	return p.fetch(d, sched.Background, nil)
}

// life lets work begin until the end, and waits for it.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex // held to begin work, so that none begins beside the end
	work sync.WaitGroup
}

// start runs f unless the end has come.
func (l *life) start(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() == nil {
		l.work.Go(f)
	}
}

// stop begins nothing more.
func (p *prefetcher) stop() {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cancel()
	}
}

// end stops and waits.
func (p *prefetcher) end() {
	if p != nil {
		p.stop()
		p.work.Wait()
	}
}
