package cache

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	smallBuffer = 64 << 10
	largeBuffer = 1 << 20
)

// buffers hands out write buffers up to a bound; beyond it fills write without one, and none waits for another.
type buffers struct {
	left         atomic.Int64
	small, large sync.Pool
}

func newBuffers(bound int64) *buffers {
	b := &buffers{}
	b.left.Store(bound)
	b.small.New = func() any { return new([smallBuffer]byte) }
	b.large.New = func() any { return new([largeBuffer]byte) }
	return b
}

// get returns an empty buffer of smallBuffer or largeBuffer bytes, nil when the bound is reached.
func (b *buffers) get(size int) []byte {
	if b.left.Add(-int64(size)) < 0 {
		b.left.Add(int64(size))
		return nil
	}
	if size == smallBuffer {
		return b.small.Get().(*[smallBuffer]byte)[:0]
	}
	return b.large.Get().(*[largeBuffer]byte)[:0]
}

func (b *buffers) put(p []byte) {
	p = p[:cap(p)]
	if len(p) == smallBuffer {
		b.small.Put((*[smallBuffer]byte)(p))
	} else {
		b.large.Put((*[largeBuffer]byte)(p))
	}
	b.left.Add(int64(len(p)))
}

// file is a partial file that grows.
type file struct {
	ctx  context.Context // the Store's; a wait for room on the disk ends with it
	s    *Store
	fd   int
	size int64 // what is expected, -1 unknown
	off  int64 // bytes written
	sums *summer
}

// append writes p at the end. A full disk is answered by one eviction.
func (f *file) append(p []byte) error {
	n, err := pwriteFull(f.fd, p, f.off)
	if full(err) && f.s.makeRoom(f.ctx, max(f.size-f.off, largeBuffer)) {
		var more int
		more, err = pwriteFull(f.fd, p[n:], f.off+int64(n))
		n += more
	}
	if err != nil {
		return diskError("write", err)
	}
	f.sums.write(p)
	f.off += int64(n)
	return nil
}

func (f *file) reset() error {
	f.sums.reset()
	if f.off == 0 {
		return nil
	}
	f.off = 0
	return diskError("truncate", unix.Ftruncate(f.fd, 0))
}

// pipe lets the producer of a large blob go on while its bytes are hashed and written, in pieces of largeBuffer.
type pipe struct {
	f    *file
	cur  []byte      // being filled by the producer
	full chan []byte // to the writer
	free chan []byte // back from it
	done chan struct{}

	failed atomic.Pointer[error] // the writer's first error
}

// newPipe starts the writer of a pipe, nil when there are no buffers for one.
func newPipe(f *file) *pipe {
	cur := f.s.bufs.get(largeBuffer)
	if cur == nil {
		return nil
	}
	next := f.s.bufs.get(largeBuffer)
	if next == nil {
		f.s.bufs.put(cur)
		return nil
	}
	p := &pipe{f: f, cur: cur, full: make(chan []byte, 1), free: make(chan []byte, 2), done: make(chan struct{})}
	p.free <- next
	go p.drain() // close waits for it
	return p
}

func (p *pipe) drain() {
	defer close(p.done)
	for b := range p.full {
		if p.failed.Load() == nil {
			if err := p.f.append(b); err != nil {
				p.failed.Store(&err)
			}
		}
		p.free <- b[:0]
	}
}

// write passes on b; an error is that of an earlier piece.
func (p *pipe) write(b []byte) error {
	for len(b) > 0 {
		n := copy(p.cur[len(p.cur):cap(p.cur)], b)
		p.cur, b = p.cur[:len(p.cur)+n], b[n:]
		if len(p.cur) == cap(p.cur) {
			p.full <- p.cur
			p.cur = <-p.free
		}
	}
	return p.err()
}

func (p *pipe) err() error {
	if e := p.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// close writes the rest, ends the writer and returns its error.
func (p *pipe) close() error {
	p.full <- p.cur
	close(p.full)
	<-p.done
	for range 2 {
		p.f.s.bufs.put(<-p.free)
	}
	return p.err()
}
