package prefetch

import (
	"errors"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Bounds of the page cache pushes.
const (
	pushWorkers = 3   // files pushed at once
	maxPushes   = 256 // files queued, and files deferred; readers read what is beyond that
)

// Kernel is the kernel that serves a mount.
type Kernel interface {
	// Store puts the whole content of a file into the page cache. The error is fs.ErrNotExist
	// when the kernel has not looked up the file yet.
	Store(r pfimg.Row, data []byte) error
}

// push is a file to be put into the page cache.
type push struct {
	row, dir pfimg.Row
	blob     pfimg.Digest
	size     int64
}

// pusher puts files into the page cache of the kernel before they are read; a read then causes no
// request. A file that the kernel has not looked up is deferred until its directory is listed.
type pusher struct {
	kernel atomic.Pointer[Kernel] // nil until there is a mount
	queue  chan push
	pushed atomic.Int64
	bufs   sync.Pool // *[]byte, each as long as the largest file

	mu       sync.Mutex           // guards the fields below
	deferred map[pfimg.Row][]push // by directory
	waiting  int                  // files in deferred
}

// newPusher returns a pusher of files of at most maxSize bytes.
func newPusher(maxSize int64) *pusher {
	p := &pusher{queue: make(chan push, maxPushes), deferred: make(map[pfimg.Row][]push)}
	p.bufs.New = func() any {
		buf := make([]byte, maxSize)
		return &buf
	}
	return p
}

// enqueue adds a file to the queue. It drops the file when the queue is full.
func (p *pusher) enqueue(f push) {
	select {
	case p.queue <- f:
	default:
	}
}

// deferUntilListed keeps a file until its directory is listed. When too many wait, it drops those
// before: they are of walks that ended.
func (p *pusher) deferUntilListed(f push) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == maxPushes {
		clear(p.deferred)
		p.waiting = 0
	}
	p.deferred[f.dir] = append(p.deferred[f.dir], f)
	p.waiting++
}

// listed queues the deferred files of a directory.
func (p *pusher) listed(dir pfimg.Row) {
	p.mu.Lock()
	list := p.deferred[dir]
	delete(p.deferred, dir)
	p.waiting -= len(list)
	p.mu.Unlock()
	for _, f := range list {
		p.enqueue(f)
	}
}

// store pushes a file whose blob, which the cache has verified, is read from r.
func (p *pusher) store(r io.ReaderAt, f push) {
	kernel := p.kernel.Load()
	if kernel == nil {
		return // the file was read before the mount was complete
	}
	buf := p.bufs.Get().(*[]byte)
	defer p.bufs.Put(buf)
	data := (*buf)[:f.size]
	if _, err := r.ReadAt(data, 0); err != nil {
		return // a reader meets the error, too
	}
	switch err := (*kernel).Store(f.row, data); {
	case err == nil:
		p.pushed.Add(1)
	case errors.Is(err, fs.ErrNotExist):
		p.deferUntilListed(f)
	}
}
