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

	mu      sync.Mutex // guards the fields below
	blobs   map[pfimg.Digest]*sched.Priority
	awaited map[pfimg.Digest]int // readers that wait
}

// Await notes that a reader waits for a blob, until the returned function is called, once. A
// download of it that is under way, or begins meanwhile, is as urgent as a reader's own.
func (f *Inflight) Await(d pfimg.Digest) (end func()) {
	f.waits.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awaited == nil {
		f.awaited = make(map[pfimg.Digest]int)
	}
	f.awaited[d]++
	if p := f.blobs[d]; p != nil {
		p.Raise(sched.Reader)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.awaited[d]--; f.awaited[d] == 0 {
			delete(f.awaited, d)
		}
	}
}

// Waits returns how often Await was called.
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
	if f.awaited[d] > 0 {
		c = sched.Reader
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
