package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/pfmount/pfmount/cache/disk"
)

// File is a complete blob, open for reading. Eviction does not disturb it. It is safe for
// concurrent use.
type File struct {
	s     *Store
	ctx   context.Context // that of Open; it bounds the wait for a blob that turns out damaged
	size  int64           // as given to Open
	fill  Fill
	first *entry

	state  atomic.Int64 // reads under way, plus closing once Close was called
	mu     sync.Mutex   // held while a damaged blob is replaced
	second atomic.Pointer[entry]
}

const closing = 1 << 32

var _ io.ReaderAt = (*File)(nil)

// Size returns the blob's length in bytes.
func (f *File) Size() int64 { return f.first.blob.size() }

// ReadAt reads from the blob as io.ReaderAt does. No byte is returned of a chunk that the mode
// wants checked and that does not match. When the blob turns out damaged it is dropped and fetched
// again, once, under the ctx of Open.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if !f.join() {
		return 0, os.ErrClosed
	}
	defer f.leave()
	e := f.entry()
	n, err := e.read(p, off)
	if !errors.Is(err, ErrDamaged) {
		return n, err
	}
	if e, err = f.replace(e, err); err != nil {
		return 0, err
	}
	return e.read(p, off)
}

// Close gives the blob back. A read that is under way ends first.
func (f *File) Close() error {
	for {
		old := f.state.Load()
		if old&closing != 0 {
			return os.ErrClosed
		}
		if f.state.CompareAndSwap(old, old|closing) {
			if old == 0 {
				f.release()
			}
			return nil
		}
	}
}

// join begins a read, unless Close was called.
func (f *File) join() bool {
	for {
		old := f.state.Load()
		if old&closing != 0 {
			return false
		}
		if f.state.CompareAndSwap(old, old+1) {
			return true
		}
	}
}

// leave ends a read; the last one after Close gives the blob back.
func (f *File) leave() {
	if f.state.Add(-1) == closing {
		f.release()
	}
}

func (f *File) release() {
	f.s.table.release(f.first)
	if e := f.second.Load(); e != nil {
		f.s.table.release(e)
	}
}

func (f *File) entry() *entry {
	if e := f.second.Load(); e != nil {
		return e
	}
	return f.first
}

// replace drops the damaged entry and fetches the blob again, if that was not done before.
func (f *File) replace(bad *entry, cause error) (*entry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.second.Load(); e != nil {
		if e == bad {
			return nil, cause
		}
		return e, nil
	}
	s := f.s
	if s.table.discard(bad) { // else another reader was here, or it was evicted anyway
		s.dir.Drop(f.ctx, bad.blob.file, cause)
	}
	e, err := s.enter(f.ctx, bad.key, f.size, f.fill)
	if err != nil {
		return nil, err
	}
	if e.blob.size() != bad.blob.size() {
		s.table.release(e)
		return nil, disk.SizeError(bad.key, bad.blob.size(), e.blob.size())
	}
	f.second.Store(e)
	return e, nil
}

// read reads from a blob as io.ReaderAt does.
func (e *entry) read(p []byte, off int64) (n int, err error) {
	b := e.blob
	if off < 0 {
		return 0, fmt.Errorf("cache: blob %x: negative offset", e.key)
	}
	if off >= b.size() {
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), b.size()-off))
	if b.file == nil {
		copy(p[:want], b.mem[off:])
	} else if err := b.file.Read(p[:want], off); err != nil {
		return 0, err
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}
