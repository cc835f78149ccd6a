package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
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

// Blob writes a blob's decoded bytes to w. size is its signed size in bytes, -1 when none is signed. The bytes are right
// when Blob returns nil; whatever it wrote before an error is void. An error of w comes back as it is; pfimg.ErrIntegrity
// names image, blob, layer, what was expected and what came.
func (im *Image) Blob(ctx context.Context, d pfimg.Digest, size int64, w Sink) error {
	ctx, done, err := im.use.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	return im.blob(ctx, d, size, w)
}

// blob is Blob within its bounds.
func (im *Image) blob(ctx context.Context, d pfimg.Digest, size int64, w Sink) error {
	layers := im.root.find(d)
	if len(layers) == 0 {
		l, err := im.unnamed.find(ctx, d)
		if err != nil {
			return fmt.Errorf("%s: blob %s: %w", im.name(), d, err)
		}
		layers = []layer{l}
	}
	var first error
	for i, l := range layers {
		if i > 0 {
			if err := w.Reset(); err != nil {
				return err
			}
		}
		err := im.blobFrom(ctx, l, d, size, w)
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
			first = im.blame(l, d, err)
		}
		if !errors.Is(err, pfimg.ErrIntegrity) {
			break // another layer of the same registry would fare no better
		}
	}
	return first
}

func (im *Image) name() string { return clip(im.ref.String(), maxWords) }

func (im *Image) blame(l layer, d pfimg.Digest, err error) error {
	if l.hashed() {
		return fmt.Errorf("%s: blob %s (layer %s): %w", im.name(), d, l.wire, err)
	}
	return fmt.Errorf("%s: blob %s: %w", im.name(), d, err)
}

// blobFrom gets a blob from one of the layers that claim it.
func (im *Image) blobFrom(ctx context.Context, l layer, d pfimg.Digest, size int64, w Sink) error {
	want := wanted{limit: size, size: size, blob: d}
	if size < 0 {
		want.size, want.limit = l.decoded, im.options.MaxBlobSize
		if l.decoded >= 0 {
			want.limit = min(want.limit, l.decoded)
		}
	}
	if l.size > maxWire(want.limit) {
		return fmt.Errorf("%d stored bytes for at most %d decoded ones: %w", l.size, want.limit, pfimg.ErrIntegrity)
	}
	return im.fill(ctx, l, want, w)
}

// fill decodes a layer into w. Wrong bytes from a network are asked for once more, past every cache, and then from
// each further place; a frame that needs a large window makes it start over with a decoder for that.
func (im *Image) fill(ctx context.Context, l layer, want wanted, w Sink) error {
	again, big := 0, false
	for {
		err := im.try(ctx, pass{layer: l, limit: want.limit, wrong: again, big: big}, want, w)
		var wrong *wrongBytes
		switch {
		case errors.Is(err, errBigWindow) && !big:
			big = true
		case errors.As(err, &wrong) && again < im.root.places:
			again++
			im.options.Log.Warn("wrong bytes, asking once more past every cache", "image", im.ref.String(),
				"blob", want.blob.String(), "layer", l.wire.String(), "from", wrong.from, "cause", err)
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
	layer layer
	limit int64 // decoded bytes
	wrong int   // how often the stored bytes were wrong before
	big   bool  // with a decoder for large windows
}

func (im *Image) try(ctx context.Context, p pass, want wanted, w io.Writer) error {
	if want.size < 0 || max(want.size, p.layer.size) > scratchSmall {
		leave, err := im.decoders.enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
	}
	if want.size >= 0 && want.size <= smallBlob && p.layer.size <= maxWire(want.size) {
		return im.trySmall(ctx, p, want, w)
	}
	n, got, err := im.stream(ctx, p, w)
	if err != nil {
		return err
	}
	return want.check(n, got)
}

// trySmall holds the whole blob in memory: w sees it only when it is right.
func (im *Image) trySmall(ctx context.Context, p pass, want wanted, w io.Writer) error {
	from, err := im.read(ctx, p.layer, p.wrong)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	s, pool := im.decoders.scratch(from.size, want.size)
	defer pool.Put(s)
	wire := s.wire[:from.size]
	if n, err := io.ReadFull(from, wire); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return &wrongBytes{text: fmt.Sprintf("%d stored bytes, not %d", n, from.size), from: from.from()}
		}
		return err
	}
	if p.layer.hashed() {
		if got := wireDigest(sha256.Sum256(wire)); got != p.layer.wire {
			return wrongHash(got, from, from.size)
		}
	}
	out, err := im.decoders.decodeAll(wire, s.out[:0:want.size])
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

func wrongHash(got wireDigest, from *stored, n int64) error {
	return &wrongBytes{text: fmt.Sprintf("the %d stored bytes hash to %s", n, got), from: from.from()}
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

// scratchSmall is the stored and decoded size up to which scratch comes from a pool of its own, in bytes: buffers for
// the many small files of a tree must not all grow to the largest.
const scratchSmall = 64 << 10

func (d *decoders) scratch(wire, out int64) (*scratch, *sync.Pool) {
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
