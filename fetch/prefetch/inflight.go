package prefetch

import (
	"sync"
	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// Inflight tracks the downloads of a prefetcher by digest, so that a reader can raise their
// priority. The zero value is ready for use, also without a prefetcher.
type Inflight struct {
	waits atomic.Int64

	mu    sync.Mutex // guards blobs
	blobs map[pfimg.Digest]*sched.Priority
}

// Raise notes that a reader is about to wait for a blob. A download of it that is under way becomes
// as urgent as a reader's own.
func (f *Inflight) Raise(d pfimg.Digest) {
	f.waits.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.blobs[d]; p != nil {
		p.Raise(sched.Reader)
	}
}

// Waits returns how often Raise was called.
func (f *Inflight) Waits() int64 { return f.waits.Load() }

// begin adds a download of a class and returns its priority. ok is false when the blob has one
// already, which is then raised to the class.
func (f *Inflight) begin(d pfimg.Digest, c sched.Class) (p *sched.Priority, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.blobs[d]; p != nil {
		p.Raise(c)
		return nil, false
	}
	if f.blobs == nil {
		f.blobs = make(map[pfimg.Digest]*sched.Priority)
	}
	p = sched.NewPriority(c)
	f.blobs[d] = p
	return p, true
}

// end removes the download of a blob.
func (f *Inflight) end(d pfimg.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.blobs, d)
}

// has reports whether a blob is being downloaded.
func (f *Inflight) has(d pfimg.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.blobs[d] != nil
}
