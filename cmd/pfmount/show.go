package main

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
	"github.com/pfmount/pfmount/fusefs"
)

// Bounds of what is shown.
const (
	showers   = 3   // files that are read and shown at once
	showQueue = 256 // files that wait for that, or for the kernel to hear of them; more are left to their readers
)

// shown is a file that comes next and is cached, or will be when it is shown.
type shown struct {
	row, dir pfimg.Row
	blob     pfimg.Digest
	size     int64
}

// shows are files to put into the page cache of the kernel that serves a mount, where their readers find them without asking.
type shows struct {
	server atomic.Pointer[fusefs.Server] // nil before the mount is there
	queue  chan shown
	count  atomic.Int64 // shown so far

	mu    sync.Mutex            // guards the fields below
	early map[pfimg.Row][]shown // by directory: the kernel hears of them when it is listed
	held  int                   // files in early
}

// showBufs hold files while they are shown.
var showBufs = sync.Pool{New: func() any { return new([fusefs.MaxStore]byte) }}

func newShows() *shows {
	return &shows{queue: make(chan shown, showQueue), early: map[pfimg.Row][]shown{}}
}

// add shows a file soon, unless too many wait for it: its reader may then come first.
func (s *shows) add(f shown) {
	select {
	case s.queue <- f:
	default:
	}
}

// hold keeps a file until its directory was listed.
func (s *shows) hold(f shown) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == showQueue { // of walks that went elsewhere
		clear(s.early)
		s.held = 0
	}
	s.early[f.dir] = append(s.early[f.dir], f)
	s.held++
}

// listed shows the files of a directory that waited for it.
func (s *shows) listed(dir pfimg.Row) {
	s.mu.Lock()
	list := s.early[dir]
	delete(s.early, dir)
	s.held -= len(list)
	s.mu.Unlock()
	for _, f := range list {
		s.add(f)
	}
}

// showTo begins to show files to the kernel of a mount.
func (p *prefetcher) showTo(s *fusefs.Server) {
	if p == nil {
		return
	}
	p.shows.server.Store(s)
	for range showers {
		p.start(func() {
			for {
				select {
				case f := <-p.shows.queue:
					_ = p.fetch(f.blob, sched.Ahead, func(r io.ReaderAt) { p.shows.store(r, f) })
				case <-p.ctx.Done():
					return
				}
			}
		})
	}
}

// store shows a file whose blob, which the cache has checked, is read from r.
func (s *shows) store(r io.ReaderAt, f shown) {
	server := s.server.Load()
	if server == nil {
		return // its reader was faster than the mount
	}
	buf := showBufs.Get().(*[fusefs.MaxStore]byte)
	defer showBufs.Put(buf)
	if _, err := r.ReadAt(buf[:f.size], 0); err != nil {
		return // its reader meets this, too
	}
	switch err := server.Store(f.row, buf[:f.size]); {
	case err == nil:
		s.count.Add(1)
	case errors.Is(err, fusefs.ErrUnknown):
		s.hold(f)
	}
}
