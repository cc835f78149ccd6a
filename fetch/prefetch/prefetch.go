// Package prefetch fetches the blobs of a mounted image before they are read: those that package
// ahead expects next, those that earlier mounts read next, or all of them while nothing is read. It
// also pushes cached files into the kernel's page cache.
//
// It promises that a blob is fetched once at a time, that a fetch becomes as urgent as a reader's
// own when a reader waits for it, that errors are left to the readers, that all work is bounded,
// and that Close waits for every goroutine.
//
// It does not know where blobs come from, how they are cached, or how a file system is served.
package prefetch

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/pfmount/pfmount/fetch/ahead"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// Bounds of what is fetched before it is read. Readahead may evict old blobs from the cache, as
// reading does, but few of them; the background evicts none.
const (
	aheadBlob  = 4 << 20  // decoded bytes of a blob that is fetched ahead
	aheadBytes = 32 << 20 // decoded bytes fetched ahead and not read yet
	cacheShare = 16       // the part of the cache that it may fill, and the background leaves free
)

// Image is the image that is fetched.
type Image interface {
	Manifest() *pfimg.Manifest
	// Wire returns a blob's stored and decoded size, -1 where that is not known. ok is false when
	// the image does not have the blob.
	Wire(d pfimg.Digest) (wire, decoded int64, ok bool)
	// WaitIdle waits until a fetch in the background disturbs no reader.
	WaitIdle(ctx context.Context) error
}

// Cache is what is filled.
type Cache interface {
	// Has reports whether the cache has a blob, unchecked and without waiting.
	Has(d pfimg.Digest) bool
	// Room returns how many bytes fit before anything is evicted.
	Room() int64
	// Fetch fills the cache with a blob, by requests of priority p. Unless a reader raised p, it
	// then calls use, if that is not nil, with the verified blob.
	Fetch(ctx context.Context, d pfimg.Digest, p *sched.Priority, use func(io.ReaderAt)) error
}

// Config says what is fetched, and where to. All fields but Records are needed.
type Config struct {
	Index     *pfimg.Index
	Image     Image
	Cache     Cache
	Records   Records   // keeps the order of reading; nil: it is neither followed nor recorded
	Inflight  *Inflight // shared with the readers of Cache
	Limits    Limits
	Online    bool             // blobs come over a network; if not, only pushes are worth while
	Whole     bool             // the whole image is fetched while nothing is read
	BlobFault func(error) bool // reports whether an error concerns one blob only, and not the link
	Log       *slog.Logger
}

// Limits are the bounds that others set.
type Limits struct {
	Connections int   // to the image's host
	Fills       int   // of the cache at once
	CacheSize   int64 // bytes
	MaxPush     int64 // bytes of the largest file that is pushed
}

// Stats counts files.
type Stats struct {
	ahead.Stats
	Pushed int64 // into the page cache
}

// Prefetcher fetches ahead of the readers of a mount. It observes them as a fusefs.Observer.
type Prefetcher struct {
	config   Config
	walks    *ahead.Policy // files in the order of a walk
	learned  *learned      // nil: no order is known
	recorder atomic.Pointer[recorder]
	pusher   *pusher
	share    int64         // bytes of cacheShare
	coming   atomic.Int64  // bytes that the background fetches
	slots    chan struct{} // one for each fetch ahead
	group    *group
}

// learned is the order of earlier mounts.
type learned struct {
	list   []pfimg.Digest
	rows   map[pfimg.Digest]pfimg.Row // of the list, from 1
	policy *ahead.Policy
}

// New returns a prefetcher and starts what it does by itself. The caller must Close it.
func New(c Config) *Prefetcher {
	p := &Prefetcher{config: c, share: c.Limits.CacheSize / cacheShare, group: newGroup()}
	p.pusher = newPusher(c.Limits.MaxPush)
	// Answers come in another order than files are read: twice the connections keep them all busy.
	files := max(1, min(2*c.Limits.Connections, c.Limits.Fills/8))
	p.slots = make(chan struct{}, 4*files)
	config := ahead.Config{Files: files, Bytes: min(aheadBytes, p.share)}
	walks := config
	walks.Orders = ahead.Walks(c.Index)
	walks.Want, walks.Shown = p.want, c.Limits.MaxPush
	p.walks = ahead.New(walks)
	if c.Online && c.Records != nil {
		p.learn(config)
	}
	if c.Online && c.Whole {
		p.group.start(func() { p.fetchWhole(c.Index.Blobs()) })
	}
	return p
}

// learn follows the order of earlier mounts and records that of this one.
func (p *Prefetcher) learn(config ahead.Config) {
	if list := Order(p.config.Records, p.config.Image.Manifest(), p.config.Index); len(list) > 0 {
		p.learned = &learned{list: list, rows: make(map[pfimg.Digest]pfimg.Row, len(list))}
		for i, d := range list {
			p.learned.rows[d] = pfimg.Row(i) + 1
		}
		config.Orders, config.Opens = ahead.List(len(list)), 2
		config.Want = func(r pfimg.Row) (int64, ahead.Plan) {
			if d := list[r-1]; !p.config.Cache.Has(d) {
				return p.fetchable(d)
			}
			return 0, ahead.Leave
		}
		p.learned.policy = ahead.New(config)
	}
	r := newRecorder()
	p.recorder.Store(r)
	p.group.start(func() { p.saveOrder(r) })
}

// saveOrder saves the order of reading from time to time, and at the end.
func (p *Prefetcher) saveOrder(r *recorder) {
	tick := time.NewTicker(orderSave)
	defer tick.Stop()
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-p.group.ctx.Done():
		}
		// Before save, so that the last one saves all that was recorded.
		last = p.recorder.Load() == nil || p.group.ctx.Err() != nil
		if err := r.save(p.config.Records, p.config.Image.Manifest().ID); err != nil {
			p.config.Log.Debug("the order of reading was not kept", "error", err)
		}
	}
}

// want returns what to do about a file of the tree that comes next. One that is cached is pushed,
// or opened and checked when it is too large for that.
func (p *Prefetcher) want(r pfimg.Row) (int64, ahead.Plan) {
	d, size, ok := p.config.Index.Blob(r)
	switch {
	case !ok:
		return 0, ahead.Leave
	case !p.config.Cache.Has(d):
		if !p.config.Online {
			return 0, ahead.Leave
		}
	case size >= 0 && size <= p.config.Limits.MaxPush:
		return size, ahead.Show
	}
	return p.fetchable(d)
}

// fetchable returns the size of a blob and whether it can be fetched ahead.
func (p *Prefetcher) fetchable(d pfimg.Digest) (int64, ahead.Plan) {
	size, known := p.config.Index.Size(d)
	if !known || size < 0 || size > aheadBlob || p.config.Inflight.has(d) {
		return 0, ahead.Leave
	}
	if _, _, stored := p.config.Image.Wire(d); !stored {
		return 0, ahead.Leave
	}
	return size, ahead.Fetch
}

// Listing notes that the process pid lists a directory, where a walk may begin.
func (p *Prefetcher) Listing(dir pfimg.Row, pid uint32) {
	if r, ok := ahead.First(p.config.Index, dir); ok {
		p.walks.Start(r, pid)
	}
}

// Listed pushes files of a directory that the kernel knows by now.
func (p *Prefetcher) Listed(dir pfimg.Row) { p.pusher.listed(dir) }

// Reading fetches and pushes what comes after a file that the process pid reads.
func (p *Prefetcher) Reading(r pfimg.Row, pid uint32) {
	d, _, _ := p.config.Index.Blob(r)
	list, before := p.walks.Read(r, pid)
	for _, r := range before {
		d, _, _ := p.config.Index.Blob(r)
		p.record(d)
	}
	p.record(d)
	for _, next := range list {
		d, size, _ := p.config.Index.Blob(next.Row)
		f := push{next.Row, p.config.Index.Parent(next.Row), d, size}
		switch next.Plan {
		case ahead.Show:
			p.pusher.enqueue(f)
		case ahead.FetchShow:
			p.fetchAhead(d, func(r io.ReaderAt) { p.pusher.store(r, f) })
		default:
			p.fetchAhead(d, nil)
		}
	}
	if p.learned == nil || p.learned.rows[d] == 0 {
		return
	}
	list, _ = p.learned.policy.Read(p.learned.rows[d], pid)
	for _, next := range list {
		p.fetchAhead(p.learned.list[next.Row-1], nil)
	}
}

// record adds a blob that is read to the order, until that is complete.
func (p *Prefetcher) record(d pfimg.Digest) {
	if r := p.recorder.Load(); r != nil && !r.add(d, time.Now()) {
		p.recorder.Store(nil)
	}
}

// PushTo starts to push files to the kernel of a mount. A nil Prefetcher does nothing.
func (p *Prefetcher) PushTo(k Kernel) {
	if p == nil {
		return
	}
	p.pusher.kernel.Store(&k)
	for range pushWorkers {
		p.group.start(func() {
			for {
				select {
				case f := <-p.pusher.queue:
					_ = p.fetch(f.blob, sched.Ahead, func(r io.ReaderAt) { p.pusher.store(r, f) })
				case <-p.group.ctx.Done():
					return
				}
			}
		})
	}
}

// Stats returns the counts so far, zero for a nil Prefetcher.
func (p *Prefetcher) Stats() (s Stats) {
	if p == nil {
		return s
	}
	s = Stats{p.walks.Stats(), p.pusher.pushed.Load()}
	if p.learned != nil {
		more := p.learned.policy.Stats()
		s.Hits, s.Wasted = s.Hits+more.Hits, s.Wasted+more.Wasted
	}
	return s
}

// Stop cancels what is under way and starts nothing more. It does not wait. A nil Prefetcher does
// nothing.
func (p *Prefetcher) Stop() {
	if p != nil {
		p.group.cancel()
	}
}

// Close stops the prefetcher and waits for its goroutines. A nil Prefetcher does nothing.
func (p *Prefetcher) Close() {
	if p != nil {
		p.group.cancel()
		p.group.wait()
	}
}

// fetchAhead starts to fetch a blob and, if use is not nil, passes the blob to it. When too many
// fetches are under way it does nothing: their readers gave up, and a reader of this blob will
// fetch it.
func (p *Prefetcher) fetchAhead(d pfimg.Digest, use func(io.ReaderAt)) {
	priority, ok := p.config.Inflight.begin(d, sched.Ahead)
	if !ok {
		return
	}
	select {
	case p.slots <- struct{}{}:
	default:
		p.config.Inflight.end(d)
		return
	}
	started := p.group.start(func() {
		defer func() { <-p.slots }()
		_ = p.fetchAs(d, priority, use)
	})
	if !started {
		<-p.slots
		p.config.Inflight.end(d)
	}
}

// fetch fetches a blob, unless that is under way already.
func (p *Prefetcher) fetch(d pfimg.Digest, c sched.Class, use func(io.ReaderAt)) error {
	if priority, ok := p.config.Inflight.begin(d, c); ok {
		return p.fetchAs(d, priority, use)
	}
	return nil
}

// fetchAs fetches a blob that was added to Inflight. A reader of the blob meets an error again.
func (p *Prefetcher) fetchAs(
	d pfimg.Digest, priority *sched.Priority, use func(io.ReaderAt),
) error {
	defer p.config.Inflight.end(d)
	err := p.config.Cache.Fetch(p.group.ctx, d, priority, use)
	if err != nil && p.group.ctx.Err() == nil {
		p.config.Log.Debug("not fetched ahead", "blob", d.String(), "error", err)
	}
	return err
}
