package cache

import (
	"sync"
	"sync/atomic"
)

// bufferSize is the size of a write buffer in bytes, and of a piece that is written without one.
const bufferSize = 64 << 10

// buffers hands out write buffers up to a bound; beyond it fills write without one, and none waits for another.
type buffers struct {
	left atomic.Int64
	pool sync.Pool
}

func newBuffers(bound int64) *buffers {
	b := &buffers{}
	b.left.Store(bound)
	b.pool.New = func() any { return new([bufferSize]byte) }
	return b
}

// get returns an empty buffer of bufferSize bytes, nil when the bound is reached.
func (b *buffers) get() []byte {
	if b.left.Add(-bufferSize) < 0 {
		b.left.Add(bufferSize)
		return nil
	}
	return b.pool.Get().(*[bufferSize]byte)[:0]
}

func (b *buffers) put(p []byte) {
	b.pool.Put((*[bufferSize]byte)(p[:bufferSize]))
	b.left.Add(bufferSize)
}
