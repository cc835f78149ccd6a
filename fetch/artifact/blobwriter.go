package artifact

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// blobWriter takes decoded bytes, never more than limit, hashes them and writes them on in large
// pieces; with ahead in a goroutine of its own.
type blobWriter struct {
	w     io.Writer
	hash  hash.Hash
	pool  *sync.Pool
	limit int64
	total int64
	buf   *chunk
	used  int
	err   error // of w

	full chan *filledChunk // ahead only
	free chan *chunk
	done sync.WaitGroup
	dead chan struct{} // closed when err is set
}

func newBlobWriter(w io.Writer, pool *sync.Pool, limit int64, ahead bool) *blobWriter {
	o := &blobWriter{w: w, hash: sha256.New(), pool: pool, limit: limit, buf: pool.Get().(*chunk)}
	if ahead {
		o.full, o.free = make(chan *filledChunk, 1), make(chan *chunk, 2)
		o.dead = make(chan struct{})
		for range cap(o.free) {
			o.free <- pool.Get().(*chunk)
		}
		o.done.Go(o.run)
	}
	return o
}

// put hashes and writes; hashing first would be as good.
func (o *blobWriter) put(p []byte) error {
	o.hash.Write(p)
	_, err := o.w.Write(p)
	return err
}

func (o *blobWriter) run() {
	for l := range o.full {
		if o.err == nil {
			if o.err = o.put(l.buf[:l.n]); o.err != nil {
				close(o.dead)
			}
		}
		o.free <- l.buf // has room: one chunk is always with the writer
	}
}

// errTooMuch ends a decoder that brings more than its bound.
type errTooMuch struct{}

func (errTooMuch) Error() string { return "more than its size" }

func (o *blobWriter) Write(p []byte) (int, error) {
	if o.total+int64(len(p)) > o.limit {
		o.total = o.limit + 1
		return 0, errTooMuch{}
	}
	o.total += int64(len(p))
	for rest := p; len(rest) > 0; {
		n := copy(o.buf[o.used:], rest)
		o.used += n
		rest = rest[n:]
		if o.used == len(o.buf) {
			if err := o.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (o *blobWriter) flush() error {
	if o.used == 0 {
		return nil
	}
	n := o.used
	o.used = 0
	if o.full == nil {
		o.err = o.put(o.buf[:n])
		return o.err
	}
	select {
	case o.full <- &filledChunk{buf: o.buf, n: n}:
		o.buf = <-o.free
		return nil
	case <-o.dead:
		return o.err
	}
}

// close writes the rest, when the blob is whole, and ends the goroutine. It returns w's error.
func (o *blobWriter) close(whole bool) error {
	if whole {
		_ = o.flush() // o.err tells, when the goroutine has ended
	}
	if o.full != nil {
		close(o.full)
		o.done.Wait()
		for len(o.free) > 0 {
			o.pool.Put(<-o.free)
		}
	}
	o.pool.Put(o.buf)
	return o.err
}

// classify replaces a decoder's error when the real one is that it brought too much.
func (o *blobWriter) classify(err error) error {
	if o.total > o.limit {
		return fmt.Errorf("it decodes to more than %d bytes: %w", o.limit, pfimg.ErrIntegrity)
	}
	return err
}
