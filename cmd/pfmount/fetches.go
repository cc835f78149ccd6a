package main

import (
	"sync"
	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// fetches are those under way that nobody waited for when they began.
type fetches struct {
	waits atomic.Int64 // readers that began to wait for a blob, so far

	mu      sync.Mutex // guards all below
	under   map[pfimg.Digest]*sched.Priority
	awaited map[pfimg.Digest]int // readers that wait for a blob
}

func newFetches() *fetches {
	return &fetches{under: map[pfimg.Digest]*sched.Priority{}, awaited: map[pfimg.Digest]int{}}
}

// begin notes a fetch; false when the blob has one already, which is then at least as urgent.
func (f *fetches) begin(d pfimg.Digest, c sched.Class) (*sched.Priority, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.under[d]; u != nil {
		u.Raise(c)
		return nil, false
	}
	if f.awaited[d] > 0 {
		c = sched.Reader
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

// await raises the fetch of a blob that a reader waits for, also one that begins before leave.
func (f *fetches) await(d pfimg.Digest) {
	f.waits.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaited[d]++
	if u := f.under[d]; u != nil {
		u.Raise(sched.Reader)
	}
}

// leave ends await.
func (f *fetches) leave(d pfimg.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awaited[d]--; f.awaited[d] == 0 {
		delete(f.awaited, d)
	}
}
