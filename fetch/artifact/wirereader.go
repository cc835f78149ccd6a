package artifact

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Sizes of the buffers between download, decoding and writing, in bytes. Two or three are under way
// on each side.
const (
	chunkSize = 256 << 10
	chunkLow  = 64 << 10 // a chunk is handed on when it has this much
)

// chunks are pooled.
type chunk [chunkSize]byte

// wireReader reads stored bytes, hashes them and gives them to the decoder. With ahead it reads in
// a goroutine of its own, so that download and hash go on while the decoder works.
type wireReader struct {
	src   io.Reader
	hash  hash.Hash // nil: nothing names the stored bytes
	pool  *sync.Pool
	total int64 // bytes handed to the decoder
	cur   []byte
	buf   *chunk
	err   error // of the source; io.EOF at its end

	full chan *filledChunk // ahead only
	free chan *chunk
	stop chan struct{}
	done sync.WaitGroup
}

type filledChunk struct {
	buf *chunk
	n   int
	err error
}

func newWireReader(src io.Reader, h hash.Hash, pool *sync.Pool, ahead bool) *wireReader {
	in := &wireReader{src: src, hash: h, pool: pool}
	if !ahead {
		in.buf = pool.Get().(*chunk)
		return in
	}
	in.full, in.free = make(chan *filledChunk, 1), make(chan *chunk, 3)
	in.stop = make(chan struct{})
	for range cap(in.free) {
		in.free <- pool.Get().(*chunk)
	}
	in.done.Go(in.run)
	return in
}

// load fills a chunk from the source.
func (in *wireReader) load(buf *chunk) (int, error) {
	n, err := io.ReadAtLeast(in.src, buf[:], chunkLow)
	if err == io.ErrUnexpectedEOF {
		err = nil // the next read says why; a source's own error of this name comes again
	}
	if in.hash != nil {
		in.hash.Write(buf[:n])
	}
	return n, err
}

func (in *wireReader) run() {
	for {
		var l filledChunk
		select {
		case l.buf = <-in.free:
		case <-in.stop:
			return
		}
		l.n, l.err = in.load(l.buf)
		select {
		case in.full <- &l:
		case <-in.stop:
			in.pool.Put(l.buf)
			return
		}
		if l.err != nil {
			return
		}
	}
}

// next makes cur hold bytes, or sets err.
func (in *wireReader) next() {
	if in.full == nil {
		n, err := in.load(in.buf)
		in.cur, in.err = in.buf[:n], err
		return
	}
	if in.buf != nil {
		in.free <- in.buf // has room: only cap(free) chunks exist
		in.buf = nil
	}
	l := <-in.full
	in.buf, in.cur, in.err = l.buf, l.buf[:l.n], l.err
}

// head returns the first bytes without consuming them.
func (in *wireReader) head() []byte {
	if len(in.cur) == 0 && in.err == nil {
		in.next()
	}
	return in.cur
}

func (in *wireReader) Read(p []byte) (int, error) {
	for len(in.cur) == 0 {
		if in.err != nil {
			return 0, in.err
		}
		in.next()
	}
	n := copy(p, in.cur)
	in.cur = in.cur[n:]
	in.total += int64(n)
	return n, nil
}

// close ends the goroutine. The source must be at its end, or its context cancelled, or it may be
// waited for.
func (in *wireReader) close() {
	if in.buf != nil {
		in.pool.Put(in.buf)
	}
	if in.full == nil {
		return
	}
	close(in.stop)
	in.done.Wait()
	for {
		select {
		case l := <-in.full:
			in.pool.Put(l.buf)
		case b := <-in.free:
			in.pool.Put(b)
		default:
			return
		}
	}
}

// classify tells damaged stored bytes, which another request may mend, from a layer that holds
// something wrong. err is what the decoder said.
func (in *wireReader) classify(l Layer, from *Stored, err error) error {
	if in.hash == nil || errors.Is(err, errBigWindow) {
		return err
	}
	if in.err == io.EOF {
		if got := WireDigest(in.hash.Sum(nil)); got != l.Wire {
			return wrongHash(got, from, in.total)
		}
		return err
	}
	if errors.Is(err, pfimg.ErrIntegrity) { // too much is left to read it for an answer
		return &WrongBytes{
			Text: fmt.Sprintf("after %d stored bytes: %s", in.total, err),
			From: from.From(),
		}
	}
	return err
}
