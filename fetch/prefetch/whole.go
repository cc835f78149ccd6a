package prefetch

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// Bounds of the background.
const (
	wholeWorkers  = 8 // blobs fetched at once
	wholeFailures = 3 // failures in a row after which it gives up
)

var errNoRoom = errors.New("the cache has no room for more than what is read")

// fetchWhole fetches blobs while nothing is read. It gives up when the cache is as full as it may
// get by this, and when the link fails. Image.WaitIdle pauses after each failure.
func (p *Prefetcher) fetchWhole(list iter.Seq2[pfimg.Digest, int64]) {
	ctx, giveUp := context.WithCancelCause(p.group.ctx)
	defer giveUp(nil)
	var workers errgroup.Group
	workers.SetLimit(min(wholeWorkers, max(1, p.config.Limits.Fills/4)))
	var failed atomic.Int32
	for d := range list {
		if ctx.Err() != nil {
			break
		}
		workers.Go(func() error {
			err := p.fetchIdle(ctx, d)
			for errors.Is(err, sched.ErrGaveWay) && ctx.Err() == nil {
				err = p.fetchIdle(ctx, d)
			}
			switch {
			case err == nil:
				failed.Store(0)
			case errors.Is(err, errNoRoom):
				giveUp(err)
			case !p.config.BlobFault(err) && failed.Add(1) >= wholeFailures:
				giveUp(err)
			}
			return nil
		})
	}
	_ = workers.Wait()
	if ctx.Err() != nil && p.group.ctx.Err() == nil {
		cause := context.Cause(ctx)
		p.config.Log.Info("the rest of the image is fetched as it is read", "cause", cause)
	}
}

// fetchIdle fetches a blob once nothing more urgent is under way.
func (p *Prefetcher) fetchIdle(ctx context.Context, d pfimg.Digest) error {
	wire, _, stored := p.config.Image.Wire(d)
	size, _ := p.config.Index.Size(d)
	if !stored || p.config.Cache.Has(d) {
		return nil
	}
	bytes := max(size, wire, 0)
	defer p.coming.Add(-bytes)
	if p.config.Cache.Room() < p.coming.Add(bytes)+p.share {
		return errNoRoom
	}
	if err := p.config.Image.WaitIdle(ctx); err != nil {
		return err
	}
	return p.fetch(d, sched.Background, nil)
}
