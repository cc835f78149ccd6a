package main

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// fetches are those under way that nobody waited for when they began.
type fetches struct {
	waits atomic.Int64 // readers that began to wait for a blob, so far

	mu    sync.Mutex // guards under
	under map[pfimg.Digest]*sched.Priority
}

func newFetches() *fetches { return &fetches{under: map[pfimg.Digest]*sched.Priority{}} }

// begin notes a fetch; false when the blob has one already, which is then at least as urgent.
func (f *fetches) begin(d pfimg.Digest, c sched.Class) (*sched.Priority, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.under[d]; u != nil {
		u.Raise(c)
		return nil, false
	}
	u := sched.NewPriority(c)
	f.under[d] = u
	return u, true
}

func (f *fetches) end(d pfimg.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.under, d)
}

// has says that a blob is being fetched.
func (f *fetches) has(d pfimg.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.under[d] != nil
}

// raise notes that a reader waits for a blob.
func (f *fetches) raise(d pfimg.Digest) {
	f.waits.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.under[d]; u != nil {
		u.Raise(sched.Reader)
	}
}

// waiting is the context of a reader. The cache asks for Done when the reader begins to wait, which is when the fetch
// that it waits for becomes urgent; a blob that is at hand costs nothing.
type waiting struct {
	context.Context
	early *fetches
	blob  pfimg.Digest
}

// Done raises the fetch of the blob.
func (w waiting) Done() <-chan struct{} {
	w.early.raise(w.blob)
	return w.Context.Done()
}
