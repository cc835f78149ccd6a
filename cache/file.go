package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// File is a complete blob, open for reading. Eviction does not disturb it. It is safe for concurrent use.
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
func (f *File) Size() int64 { return f.first.blob.size }

// ReadAt reads from the blob as io.ReaderAt does. No byte is returned of a chunk that the mode wants checked and
// that does not match. When the blob turns out damaged it is dropped and fetched again, once, under the ctx of Open.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if !f.join() {
		return 0, os.ErrClosed
	}
	defer f.leave()
	e := f.entry()
	n, err := f.s.read(e, p, off)
	if !errors.Is(err, ErrDamaged) {
		return n, err
	}
	if e, err = f.replace(e, err); err != nil {
		return 0, err
	}
	return f.s.read(e, p, off)
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
	if d, err := s.disk.use(); err == nil {
		if s.table.discard(bad) { // else another reader was here, or it was evicted anyway
			s.drop(f.ctx, d, bad.key, bad.blob.ino, cause.Error())
		}
		s.disk.done(d)
	}
	e, err := s.enter(f.ctx, bad.key, f.size, f.fill)
	if err != nil {
		return nil, err
	}
	if e.blob.size != bad.blob.size {
		s.table.release(e)
		return nil, sizeError(bad.key, bad.blob.size, e.blob.size)
	}
	f.second.Store(e)
	return e, nil
}

// read reads from a blob and checks what the mode wants checked. A read that comes out short is damage.
func (s *Store) read(e *entry, p []byte, off int64) (n int, err error) {
	b := e.blob
	if off < 0 {
		return 0, fmt.Errorf("cache: blob %x: negative offset", e.key)
	}
	if off >= b.size {
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), b.size-off))
	switch {
	case b.fd < 0:
		copy(p[:want], b.mem[off:])
	case b.sums != nil:
		err = s.readChecked(e, p[:want], off)
	default:
		err = readExact(e, p[:want], off)
	}
	if err != nil {
		return 0, err
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

func readExact(e *entry, p []byte, off int64) error {
	n, err := preadFull(e.blob.fd, p, off)
	if err != nil {
		return badFile(e.key, "read: "+err.Error())
	}
	if n < len(p) {
		return badFile(e.key, "shorter than it was")
	}
	return nil
}

// readChecked reads from a large blob chunk by chunk; each is checked before it is used, once in a process.
func (s *Store) readChecked(e *entry, p []byte, off int64) error {
	chunk := int64(s.lim.chunk)
	for len(p) > 0 {
		i := off / chunk
		n := min(int64(len(p)), (i+1)*chunk-off)
		var err error
		if s.opt.Verify != VerifyAlways && s.trusted(e, i) {
			err = readExact(e, p[:n], off)
		} else {
			err = s.checkChunk(e, i, p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (s *Store) trusted(e *entry, chunk int64) bool {
	return s.check.seen(e.key, e.blob.ino, chunk) || s.check.seen(e.key, e.blob.ino, allChunks)
}

// checkChunk hashes chunk i and copies what is wanted of it from the very bytes that were hashed.
func (s *Store) checkChunk(e *entry, i int64, p []byte, off int64) error {
	b, chunk := e.blob, int64(s.lim.chunk)
	if s.opt.Verify != VerifyAlways {
		b.mu.Lock()
		defer b.mu.Unlock()
		if s.trusted(e, i) { // another reader of the chunk was here
			return readExact(e, p, off)
		}
	}
	start := i * chunk
	buf, done := s.check.buffer(chunk)
	defer done()
	buf = buf[:min(chunk, b.size-start)]
	if err := readExact(e, buf, start); err != nil {
		return err
	}
	if !sumMatches(buf, b.sums, i) {
		return badFile(e.key, fmt.Sprintf("bytes %d to %d do not match their sum", start, start+int64(len(buf))))
	}
	s.check.add(e.key, b.ino, i)
	copy(p, buf[off-start:])
	return nil
}
