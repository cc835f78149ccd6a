package main

import (
	"context"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/ahead"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// What --prefetch takes.
const (
	prefetchAuto = "auto"
	prefetchNone = "none"
	prefetchAll  = "all"
)

// Bounds of the readahead. It may take the place of old blobs in the cache, as reading does, but never of many.
const (
	aheadBlob  = 4 << 20  // decoded bytes of a blob that is fetched ahead
	aheadBytes = 32 << 20 // decoded bytes fetched ahead and not read yet
	aheadShare = 16       // and at most this part of the cache
)

func parsePrefetch(c *cli.Context) (string, error) {
	switch what := c.String("prefetch"); what {
	case prefetchAuto, prefetchNone, prefetchAll:
		return what, nil
	default:
		return "", usagef("--prefetch: %q is not auto, none or all", what)
	}
}

// prefetcher fetches what is not read yet. All it does ends with stop; a nil one does nothing.
type prefetcher struct {
	s      *session
	policy *ahead.Policy
	ctx    context.Context
	stopIt context.CancelFunc
	places chan struct{} // one for each fetch ahead

	mu   sync.Mutex // held to begin work, so that none begins beside the end
	work sync.WaitGroup
}

// startPrefetch begins to fetch ahead of readers. Only what comes over a network is worth it.
func (s *session) startPrefetch(c *cli.Context, what string) error {
	if what == prefetchNone || s.image.Ref().Kind() != fetch.Registry || c.Bool("offline") {
		return nil
	}
	size, err := parseSize(c, "cache-size")
	if err != nil {
		return err
	}
	p := &prefetcher{s: s}
	p.ctx, p.stopIt = context.WithCancel(context.Background())
	// Twice the connections keep all of them busy while answers come back in another order than the files are read.
	files := max(1, min(2*c.Int("max-connections"), s.store.Fills()/8))
	p.places = make(chan struct{}, 4*files)
	p.policy = ahead.New(ahead.Config{Tree: s.index, Want: p.want, Files: files, Bytes: min(aheadBytes, size/aheadShare)})
	s.prefetch = p
	return nil
}

// want says whether a file is worth fetching ahead.
func (p *prefetcher) want(r pfimg.Row) (int64, bool) {
	d, size, ok := p.s.index.Blob(r)
	if !ok || size < 0 || size > aheadBlob || p.s.early.has(d) {
		return 0, false
	}
	if _, _, stored := p.s.image.Wire(d); !stored {
		return 0, false
	}
	_, cached := p.s.store.Stat(d)
	return size, !cached
}

// hook is what a mount tells of its reads.
func (p *prefetcher) hook() func(pfimg.Row) {
	if p == nil {
		return nil
	}
	return p.reading
}

// reading fetches what comes after a file that is being read.
func (p *prefetcher) reading(r pfimg.Row) {
	for _, next := range p.policy.Read(r) {
		select {
		case p.places <- struct{}{}:
		default:
			return // what is under way was given up by its reader; the next file is fetched when it is read
		}
		p.start(func() {
			defer func() { <-p.places }()
			p.fetch(next, fetch.Ahead)
		})
	}
}

// start runs f unless the end has come.
func (p *prefetcher) start(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() == nil {
		p.work.Go(f)
	}
}

// fetch gets a file's blob. A failure is the reader's to meet, if one comes.
func (p *prefetcher) fetch(r pfimg.Row, c fetch.Class) {
	d, size, _ := p.s.index.Blob(r)
	if err := p.s.blobs().fetch(p.ctx, d, size, c); err != nil && p.ctx.Err() == nil {
		p.s.log.Debug("not fetched ahead", "image", p.s.image.Ref().String(), "path", p.s.index.Path(r), "error", err)
	}
}

// stop begins nothing more.
func (p *prefetcher) stop() {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stopIt()
	}
}

// end stops and waits.
func (p *prefetcher) end() {
	if p != nil {
		p.stop()
		p.work.Wait()
	}
}
