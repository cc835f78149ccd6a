package main

import (
	"context"
	"sync/atomic"
	"time"

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

// Bounds of what is fetched before it is read. The readahead may take the place of old blobs in the cache, as reading
// does, but never of many; the background takes nobody's place.
const (
	aheadBlob  = 4 << 20  // decoded bytes of a blob that is fetched ahead
	aheadBytes = 32 << 20 // decoded bytes fetched ahead and not read yet
	cacheShare = 16       // and at most this part of the cache, which the background leaves free as well
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
	s       *session
	walks   *ahead.Policy // files in the order of a walk
	list    []pfimg.Digest
	hints   *ahead.Policy // list in its order; nil: there is none
	places  map[pfimg.Digest]pfimg.Row
	learner atomic.Pointer[learner] // nil: nothing more is learned
	share   int64                   // bytes of cacheShare
	coming  atomic.Int64            // bytes that the background fetches
	turns   chan struct{}           // one for each fetch ahead
	life
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
	p := &prefetcher{s: s, share: size / cacheShare}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	// Twice the connections keep all of them busy while answers come back in another order than the files are read.
	config := ahead.Config{Files: max(1, min(2*c.Int("max-connections"), s.store.Fills()/8)), Bytes: min(aheadBytes, p.share)}
	p.turns = make(chan struct{}, 4*config.Files)
	walks := config
	walks.Orders = ahead.Walks(s.index)
	walks.Want = func(r pfimg.Row) (int64, bool) { d, _, ok := s.index.Blob(r); return p.want(d, ok) }
	p.walks = ahead.New(walks)
	if !c.Bool("no-hints") {
		p.learn(config)
	}
	if what == prefetchAll {
		p.fetchAll(s.index.Blobs())
	}
	s.prefetch = p
	return nil
}

// learn follows the order of an earlier mount, and notes that of this one.
func (p *prefetcher) learn(config ahead.Config) {
	if p.list = p.s.learned(); len(p.list) > 0 {
		p.places = make(map[pfimg.Digest]pfimg.Row, len(p.list))
		for i, d := range p.list {
			p.places[d] = pfimg.Row(i) + 1
		}
		config.Orders, config.Opens = ahead.List(len(p.list)), 2
		config.Want = func(r pfimg.Row) (int64, bool) { return p.want(p.list[r-1], true) }
		p.hints = ahead.New(config)
	}
	p.learner.Store(newLearner())
	p.start(func() {
		tick := time.NewTicker(learnSave)
		defer tick.Stop()
		l := p.learner.Load()
		for p.learner.Load() != nil && p.ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-p.ctx.Done():
			}
			if err := l.save(p.s.store, p.s.image.Manifest().ID); err != nil {
				p.s.log.Debug("the order of reading was not kept", "image", p.s.image.Ref().String(), "error", err)
			}
		}
	})
}

// want says whether a blob is worth fetching ahead.
func (p *prefetcher) want(d pfimg.Digest, ok bool) (int64, bool) {
	size, known := p.s.index.Size(d)
	if !ok || !known || size < 0 || size > aheadBlob || p.s.early.has(d) {
		return 0, false
	}
	if _, _, stored := p.s.image.Wire(d); !stored {
		return 0, false
	}
	_, cached := p.s.store.Stat(d)
	return size, !cached
}

// hooks are told what a mount is asked for.
func (p *prefetcher) hooks() (reading, listing func(pfimg.Row, uint32)) {
	if p == nil {
		return nil, nil
	}
	return p.reading, p.listing
}

// listing notes where a walk may begin.
func (p *prefetcher) listing(dir pfimg.Row, pid uint32) {
	if r, ok := ahead.First(p.s.index, dir); ok {
		p.walks.Start(r, pid)
	}
}

// reading fetches what comes after a file that is being read.
func (p *prefetcher) reading(r pfimg.Row, pid uint32) {
	d, _, _ := p.s.index.Blob(r)
	if l := p.learner.Load(); l != nil && !l.note(d, time.Now()) {
		p.learner.Store(nil)
	}
	for _, next := range p.walks.Read(r, pid) {
		next, _, _ := p.s.index.Blob(next)
		p.ahead(next)
	}
	if p.hints == nil || p.places[d] == 0 {
		return
	}
	for _, next := range p.hints.Read(p.places[d], pid) {
		p.ahead(p.list[next-1])
	}
}

// stats counts what was fetched ahead.
func (p *prefetcher) stats() (s ahead.Stats) {
	if p == nil {
		return s
	}
	s = p.walks.Stats()
	if p.hints != nil {
		h := p.hints.Stats()
		s.Hits, s.Wasted = s.Hits+h.Hits, s.Wasted+h.Wasted
	}
	return s
}

// ahead fetches a blob while others go on. It does not when too many are under way: what they were fetched for was
// given up by its reader, and this one is fetched when it is read.
func (p *prefetcher) ahead(d pfimg.Digest) {
	select {
	case p.turns <- struct{}{}:
	default:
		return
	}
	p.start(func() {
		defer func() { <-p.turns }()
		_ = p.fetch(d, fetch.Ahead)
	})
}

// fetch gets a blob. A failure is the reader's to meet, if one comes.
func (p *prefetcher) fetch(d pfimg.Digest, c fetch.Class) error {
	size, _ := p.s.index.Size(d)
	err := p.s.blobs().fetch(p.ctx, d, size, c)
	if err != nil && p.ctx.Err() == nil {
		p.s.log.Debug("not fetched ahead", "image", p.s.image.Ref().String(), "blob", d.String(), "error", err)
	}
	return err
}
