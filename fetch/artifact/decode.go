package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fetch/sched"
)

// Bounds of decoding, in bytes.
const (
	// signed sizes up to this are decoded in memory, into a buffer of exactly that size
	smallBlob = 1 << 20
	// what the reference tool writes, and the largest window a pooled decoder keeps
	PooledWindow  = 8 << 20
	largestWindow = 128 << 20 // what zstd --ultra -22 needs; larger is an error
)

// maxWire is how many stored bytes a blob of at most so many decoded bytes may have. zstd makes
// nothing twice as long; the rest would be skippable frames, which decode to nothing for ever.
func maxWire(decoded int64) int64 { return 2*min(decoded, maxSize) + 1<<20 }

// Decoders are the zstd decoders of an image. A stream decoder keeps its window, so those for large
// windows are made one at a time and closed after use.
type Decoders struct {
	all    *zstd.Decoder   // stateless use only
	pool   sync.Pool       // *zstd.Decoder for streams
	rooms  *sched.Limiter  // admits decodes that need buffers beyond scratchSmall
	room   sched.HostSlots // the one of rooms
	big    chan struct{}   // held while a window above pooledWindow is decoded
	small  sync.Pool       // *scratch up to scratchSmall
	large  sync.Pool       // *scratch
	chunks sync.Pool       // *chunk
}

// NewDecoders returns decoders for at most that many blobs of more than 64 KiB at a time.
func NewDecoders(rooms int) *Decoders {
	all, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(largestWindow))
	if err != nil {
		panic("fetch: constant zstd options: " + err.Error())
	}
	d := &Decoders{all: all, rooms: sched.NewLimiter(rooms, rooms/2), big: make(chan struct{}, 1)}
	d.chunks.New = func() any { return new(chunk) }
	return d
}

func (d *Decoders) Close() { d.all.Close() }

// Enter waits for a place among the decodes that hold much memory, until leave. It comes before the
// slot at a host: in the other order retries after a failure would wait for each other. Half of the
// places are for readers alone, since other fetches may be kept from the network for long.
func (d *Decoders) Enter(ctx context.Context) (leave func(), err error) {
	return d.rooms.Acquire(ctx, &d.room, sched.PriorityOf(ctx))
}

// decodeAll decodes all of src into dst[:0], whose capacity is the bound.
func (d *Decoders) decodeAll(src, dst []byte) ([]byte, error) {
	if len(src) == 0 {
		return nil, errEmpty
	}
	out, err := d.all.DecodeAll(src, dst[:0])
	return out, explainZstd(err)
}

var (
	errEmpty = fmt.Errorf("nothing is stored, not even an empty zstd frame: %w",
		pfimg.ErrIntegrity)
	errBigWindow = errors.New("a frame further on needs a larger window")
)

// Copy decodes from r to w until both the frames and r are at their end. big allows the largest
// window; without it a frame that needs one gives errBigWindow, and the caller starts over.
func (d *Decoders) Copy(ctx context.Context, w io.Writer, r io.Reader, big bool) error {
	if big {
		select {
		case d.big <- struct{}{}:
			defer func() { <-d.big }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := copyBig(w, r)
		// The next window, which may be due at once, would else come on top of this one
		debug.FreeOSMemory()
		return explainZstd(err)
	}
	dec, _ := d.pool.Get().(*zstd.Decoder)
	if dec == nil {
		var err error
		if dec, err = newStream(PooledWindow); err != nil {
			return err
		}
	}
	err := decodeStream(dec, w, r)
	_ = dec.Reset(nil)
	d.pool.Put(dec)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return errBigWindow
	}
	return explainZstd(err)
}

// copyBig decodes with a decoder of its own, of which nothing is left afterwards.
func copyBig(w io.Writer, r io.Reader) error {
	dec, err := newStream(largestWindow)
	if err != nil {
		return err
	}
	defer dec.Close()
	return decodeStream(dec, w, r)
}

// newStream makes a stream decoder without goroutines of its own. The option on memory bounds the
// window of frames that are one segment, too.
func newStream(window uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window),
		zstd.WithDecoderMaxMemory(window))
}

func decodeStream(dec *zstd.Decoder, w io.Writer, r io.Reader) error {
	if err := dec.Reset(r); err != nil {
		return err
	}
	_, err := dec.WriteTo(w)
	return err
}

// needsBig looks at the first frame's header for a window above what pooled decoders keep.
func needsBig(head []byte) bool {
	var h zstd.Header
	if h.Decode(head) != nil || h.Skippable {
		return false
	}
	return max(h.WindowSize, h.FrameContentSize*b2u(h.SingleSegment)) > PooledWindow
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// explainZstd names what is wrong with compressed bytes.
func explainZstd(err error) error {
	text := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zstd.ErrMagicMismatch):
		text = "not zstd, or bytes after its end"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		text = "the zstd stream ends early"
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		text = "it decodes to more than its size, or needs a window above 128 MiB"
	case errors.Is(err, zstd.ErrUnknownDictionary):
		text = "it needs a dictionary, which no image has"
	default:
		text = "zstd: " + safetext.Clip(err.Error(), 120)
	}
	return fmt.Errorf("%s: %w", text, pfimg.ErrIntegrity)
}
