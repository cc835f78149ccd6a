package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// wanted says what a layer must decode to.
type wanted struct {
	limit int64        // the most decoded bytes
	size  int64        // exactly so many; -1: any number
	blob  pfimg.Digest // the logical digest
}

// Blob writes a blob's decoded bytes to w. size is its signed size in bytes, -1 when none is
// signed. The bytes are right when it returns nil; whatever it wrote before an error is void.
func (r *Reader) Blob(ctx context.Context, d pfimg.Digest, size int64, w Sink) error {
	layers := r.root.Find(d)
	if len(layers) == 0 {
		l, err := r.unlabelled.find(ctx, d)
		if err != nil {
			return fmt.Errorf("%s: blob %s: %w", r.Image, d, err)
		}
		layers = []Layer{l}
	}
	var first error
	for i, l := range layers {
		if i > 0 {
			if err := w.Reset(); err != nil {
				return err
			}
		}
		err := r.blobFrom(ctx, l, d, size, w)
		var sink sinkError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &sink):
			return sink.error
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if first == nil {
			first = r.blame(l, d, err)
		}
		if !errors.Is(err, pfimg.ErrIntegrity) {
			break // another layer of the same registry would fare no better
		}
	}
	return first
}

func (r *Reader) blame(l Layer, d pfimg.Digest, err error) error {
	if l.Hashed() {
		return fmt.Errorf("%s: blob %s (layer %s): %w", r.Image, d, l.Wire, err)
	}
	return fmt.Errorf("%s: blob %s: %w", r.Image, d, err)
}

// blobFrom gets a blob from one of the layers that claim it.
func (r *Reader) blobFrom(ctx context.Context, l Layer, d pfimg.Digest, size int64, w Sink) error {
	want := wanted{limit: size, size: size, blob: d}
	if size < 0 {
		want.size, want.limit = l.Decoded, r.MaxBlob
		if l.Decoded >= 0 {
			want.limit = min(want.limit, l.Decoded)
		}
	}
	if l.Size > maxWire(want.limit) {
		return fmt.Errorf("%d stored bytes for at most %d decoded ones: %w", l.Size, want.limit,
			pfimg.ErrIntegrity)
	}
	return r.fill(ctx, l, want, w)
}

// fill decodes a layer into w. Wrong bytes from a network are asked for once more, past every
// cache, and then from each further place; a frame that needs a large window makes it start over
// with a decoder for that.
func (r *Reader) fill(ctx context.Context, l Layer, want wanted, w Sink) error {
	again, big := 0, false
	for {
		err := r.try(ctx, pass{layer: l, limit: want.limit, wrong: again, big: big}, want, w)
		var wrong *WrongBytes
		switch {
		case errors.Is(err, errBigWindow) && !big:
			big = true
		case errors.As(err, &wrong) && again < r.root.Places:
			again++
			r.Log.Warn("wrong bytes, asking once more past every cache", "image", r.Image, "blob",
				want.blob.String(), "layer", l.Wire.String(), "from", wrong.From, "cause", err)
		default:
			return err
		}
		if err := w.Reset(); err != nil {
			return sinkError{err}
		}
	}
}

// sinkError is an error of the Sink, which says nothing about the image.
type sinkError struct{ error }

func (e sinkError) Unwrap() error { return e.error }

// pass is one reading of a layer.
type pass struct {
	layer Layer
	limit int64 // decoded bytes
	wrong int   // how often the stored bytes were wrong before
	big   bool  // with a decoder for large windows
}

func (r *Reader) try(ctx context.Context, p pass, want wanted, w io.Writer) error {
	if want.size < 0 || max(want.size, p.layer.Size) > scratchSmall {
		leave, err := r.Decoders.Enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
	}
	if want.size >= 0 && want.size <= smallBlob && p.layer.Size <= maxWire(want.size) {
		return r.trySmall(ctx, p, want, w)
	}
	n, got, err := r.stream(ctx, p, w)
	if err != nil {
		return err
	}
	return want.check(n, got)
}

// trySmall holds the whole blob in memory: w sees it only when it is right.
func (r *Reader) trySmall(ctx context.Context, p pass, want wanted, w io.Writer) error {
	from, err := r.src.Read(ctx, p.layer, p.wrong)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	s, pool := r.Decoders.scratch(from.Size, want.size)
	defer pool.Put(s)
	wire := s.wire[:from.Size]
	if n, err := io.ReadFull(from, wire); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return &WrongBytes{
				Text: fmt.Sprintf("%d stored bytes, not %d", n, from.Size),
				From: from.From(),
			}
		}
		return err
	}
	if p.layer.Hashed() {
		if got := WireDigest(sha256.Sum256(wire)); got != p.layer.Wire {
			return wrongHash(got, from, from.Size)
		}
	}
	out, err := r.Decoders.decodeAll(wire, s.out[:0:want.size])
	if err != nil {
		return err
	}
	if err := want.check(int64(len(out)), sha256.Sum256(out)); err != nil {
		return err
	}
	if _, err := w.Write(out); err != nil {
		return sinkError{err}
	}
	return nil
}

func wrongHash(got WireDigest, from *Stored, n int64) error {
	return &WrongBytes{
		Text: fmt.Sprintf("the %d stored bytes hash to %s", n, got),
		From: from.From(),
	}
}

// aheadFrom is the stored size from which download, decoding and writing run side by side, in
// bytes. Below it the goroutines cost more than they bring.
const aheadFrom = 256 << 10

// maxDrain is how many stored bytes are read after a decoding error to learn whether they are the
// right ones.
const maxDrain = 4 << 20

// stream decodes a layer to w and returns how many bytes that made and what they hash to. Without
// an error the stored bytes have proved right, too. The caller judges the content.
func (r *Reader) stream(ctx context.Context, p pass, w io.Writer) (int64, pfimg.Digest, error) {
	ctx, cancel := context.WithCancel(ctx) // ends a read that is under way when decoding fails
	defer cancel()
	from, err := r.src.Read(ctx, p.layer, p.wrong)
	if err != nil {
		return 0, pfimg.Digest{}, err
	}
	defer func() { _ = from.Close() }()
	var wireHash hash.Hash
	if p.layer.Hashed() {
		wireHash = sha256.New()
	}
	ahead := from.Size >= aheadFrom
	in := newWireReader(from, wireHash, &r.Decoders.chunks, ahead)
	out := newBlobWriter(w, &r.Decoders.chunks, p.limit, ahead)
	err = r.decode(ctx, in, out, p.big)
	if err != nil && in.err == nil && from.Size-in.total <= maxDrain &&
		!errors.Is(err, errBigWindow) {
		_, _ = io.Copy(io.Discard, in)
	}
	cancel()
	in.close()
	writeErr := out.close(err == nil)
	switch {
	case writeErr != nil:
		err = sinkError{writeErr}
	case in.err != nil && in.err != io.EOF:
		err = in.err
	default:
		err = in.classify(p.layer, from, out.classify(err))
	}
	return out.total, pfimg.Digest(out.hash.Sum(nil)), err
}

func (r *Reader) decode(ctx context.Context, in *wireReader, out *blobWriter, big bool) error {
	head := in.head()
	switch {
	case len(head) == 0 && in.err == io.EOF:
		return errEmpty
	case needsBig(head) && !big:
		return errBigWindow
	}
	return r.Decoders.Copy(ctx, out, in, big)
}

// check compares what came with what the signed manifest wants.
func (w wanted) check(n int64, got pfimg.Digest) error {
	switch {
	case w.size >= 0 && n != w.size:
		return fmt.Errorf("it decodes to %d bytes, not %d: %w", n, w.size, pfimg.ErrIntegrity)
	case got != w.blob:
		return fmt.Errorf("its content hashes to %s: %w", got, pfimg.ErrIntegrity)
	}
	return nil
}

// scratch holds the buffers of one small blob.
type scratch struct{ wire, out []byte }

// scratchSmall is the stored and decoded size up to which scratch comes from a pool of its own, in
// bytes: buffers for the many small files of a tree must not all grow to the largest.
const scratchSmall = 64 << 10

func (d *Decoders) scratch(wire, out int64) (*scratch, *sync.Pool) {
	pool := &d.large
	if wire <= scratchSmall && out <= scratchSmall {
		pool = &d.small
	}
	s, _ := pool.Get().(*scratch)
	if s == nil {
		s = &scratch{}
	}
	if int64(cap(s.wire)) < wire {
		s.wire = make([]byte, roundUp(wire))
	}
	if int64(cap(s.out)) < out {
		s.out = make([]byte, roundUp(out))
	}
	return s, pool
}

// roundUp returns a power of two, so that pooled buffers settle soon.
func roundUp(n int64) int64 {
	size := int64(4 << 10)
	for size < n {
		size *= 2
	}
	return size
}
