package main

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/fetch/ahead"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/sched"
	"github.com/pfmount/pfmount/fusefs"
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

// prefetcher fetches what is not read yet, and shows to the kernel what is cached. All it does ends with stop; a nil one
// does nothing.
type prefetcher struct {
	s       *session
	online  bool // what is fetched comes over a network: nothing else is worth fetching ahead
	shows   *shows
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

// startPrefetch begins to fetch ahead of readers.
func (s *session) startPrefetch(c *cli.Context, what string) error {
	if what == prefetchNone {
		return nil
	}
	size, err := parseSize(c, "cache-size")
	if err != nil {
		return err
	}
	p := &prefetcher{s: s, share: size / cacheShare, shows: newShows()}
	p.online = s.image.Ref().Kind() == ref.Registry && !c.Bool("offline")
	p.ctx, p.cancel = context.WithCancel(context.Background())
	// Twice the connections keep all of them busy while answers come back in another order than the files are read.
	config := ahead.Config{Files: max(1, min(2*c.Int("max-connections"), s.store.Fills()/8)), Bytes: min(aheadBytes, p.share)}
	p.turns = make(chan struct{}, 4*config.Files)
	walks := config
	walks.Orders = ahead.Walks(s.index)
	walks.Want, walks.Shown = p.want, fusefs.MaxStore
	p.walks = ahead.New(walks)
	if p.online && !c.Bool("no-hints") {
		p.learn(config)
	}
	if p.online && what == prefetchAll {
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
		config.Want = func(r pfimg.Row) (int64, ahead.Plan) {
			if d := p.list[r-1]; !p.s.store.Has(d) {
				return p.fetchable(d)
			}
			return 0, ahead.Leave
		}
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

// want says what to do about a file of the tree that comes next: one that is cached is shown, or opened and checked when it
// is too large for that.
func (p *prefetcher) want(r pfimg.Row) (int64, ahead.Plan) {
	d, size, ok := p.s.index.Blob(r)
	switch {
	case !ok:
		return 0, ahead.Leave
	case !p.s.store.Has(d):
		if !p.online {
			return 0, ahead.Leave
		}
	case size >= 0 && size <= fusefs.MaxStore:
		return size, ahead.Show
	}
	return p.fetchable(d)
}

// fetchable says whether a blob can be fetched ahead.
func (p *prefetcher) fetchable(d pfimg.Digest) (int64, ahead.Plan) {
	size, known := p.s.index.Size(d)
	if !known || size < 0 || size > aheadBlob || p.s.early.has(d) {
		return 0, ahead.Leave
	}
	if _, _, stored := p.s.image.Wire(d); !stored {
		return 0, ahead.Leave
	}
	return size, ahead.Fetch
}

// watch has the prefetcher told what a mount is asked for.
func (p *prefetcher) watch(o *fusefs.Options) {
	if p != nil {
		o.Reading, o.Listing, o.Listed = p.reading, p.listing, p.shows.listed
	}
}

// listing notes where a walk may begin.
func (p *prefetcher) listing(dir pfimg.Row, pid uint32) {
	if r, ok := ahead.First(p.s.index, dir); ok {
		p.walks.Start(r, pid)
	}
}

// reading fetches and shows what comes after a file that is being read.
func (p *prefetcher) reading(r pfimg.Row, pid uint32) {
	d, _, _ := p.s.index.Blob(r)
	list, before := p.walks.Read(r, pid)
	for _, r := range before {
		d, _, _ := p.s.index.Blob(r)
		p.note(d)
	}
	p.note(d)
	for _, next := range list {
		d, size, _ := p.s.index.Blob(next.Row)
		f := shown{next.Row, p.s.index.Parent(next.Row), d, size}
		switch next.Plan {
		case ahead.Show:
			p.shows.add(f)
		case ahead.FetchShow:
			p.ahead(d, func(r io.ReaderAt) { p.shows.store(r, f) })
		default:
			p.ahead(d, nil)
		}
	}
	if p.hints == nil || p.places[d] == 0 {
		return
	}
	list, _ = p.hints.Read(p.places[d], pid)
	for _, next := range list {
		p.ahead(p.list[next.Row-1], nil)
	}
}

// note learns that a blob is read.
func (p *prefetcher) note(d pfimg.Digest) {
	if l := p.learner.Load(); l != nil && !l.note(d, time.Now()) {
		p.learner.Store(nil)
	}
}

// stats counts what was fetched ahead, and what was shown.
func (p *prefetcher) stats() (s ahead.Stats, given int64) {
	if p == nil {
		return s, 0
	}
	s = p.walks.Stats()
	if p.hints != nil {
		h := p.hints.Stats()
		s.Hits, s.Wasted = s.Hits+h.Hits, s.Wasted+h.Wasted
	}
	return s, p.shows.count.Load()
}

// ahead fetches a blob while others go on, and gives it to use, if that is not nil. It does not when too many are under way:
// what they were fetched for was given up by its reader, and this one is fetched when it is read.
func (p *prefetcher) ahead(d pfimg.Digest, use func(io.ReaderAt)) {
	u, ok := p.s.early.begin(d, sched.Ahead)
	if !ok {
		return
	}
	select {
	case p.turns <- struct{}{}:
	default:
		p.s.early.end(d)
		return
	}
	p.start(func() {
		defer func() { <-p.turns }()
		_ = p.fetchAs(d, u, use)
	})
}

// fetch gets a blob unless it is being fetched already, and gives it to use, if that is not nil.
func (p *prefetcher) fetch(d pfimg.Digest, c sched.Class, use func(io.ReaderAt)) error {
	if u, ok := p.s.early.begin(d, c); ok {
		return p.fetchAs(d, u, use)
	}
	return nil
}

// fetchAs gets a blob for which a fetch was begun. A failure is the reader's to meet, if one comes.
func (p *prefetcher) fetchAs(d pfimg.Digest, u *sched.Priority, use func(io.ReaderAt)) error {
	size, _ := p.s.index.Size(d)
	err := p.s.blobs().fetch(p.ctx, d, size, u, use)
	if err != nil && p.ctx.Err() == nil {
		p.s.log.Debug("not fetched ahead", "image", p.s.image.Ref().String(), "blob", d.String(), "error", err)
	}
	return err
}
