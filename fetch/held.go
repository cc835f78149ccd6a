package fetch

import (
	"context"
	"errors"
	"io/fs"
	"sync"

	"github.com/pfmount/pfmount/fetch/artifact"
)

// held is a Meta that adds nothing to the one below before the image was verified: manifest,
// config and signature wait in memory, at most maxManifest and maxSmall bytes each. keep hands
// them on; what comes later is not kept at all.
type held struct {
	Meta

	mu    sync.Mutex // guards the fields below
	bytes map[[32]byte]heldBytes
	over  bool // keep was called
}

type heldBytes struct {
	data []byte
	size int64 // as it was asked for
}

var _ Meta = (*held)(nil)

func (h *held) Bytes(ctx context.Context, key [32]byte, size int64,
	fill func(context.Context, artifact.Sink) error,
) ([]byte, error) {
	h.mu.Lock()
	there, ok := h.bytes[key]
	h.mu.Unlock()
	if ok {
		return there.data, nil
	}
	b, err := h.Meta.Bytes(ctx, key, size, nil)
	if fill == nil || !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if b, err = (noMeta{}).Bytes(ctx, key, size, fill); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		if h.bytes == nil {
			h.bytes = make(map[[32]byte]heldBytes)
		}
		h.bytes[key] = heldBytes{b, size}
	}
	return b, nil
}

// keep hands on what is held, after the image was verified. The first error is returned; it costs
// no more than that a part is fetched again next time.
func (h *held) keep(ctx context.Context) (first error) {
	h.mu.Lock()
	all := h.bytes
	h.bytes, h.over = nil, true
	h.mu.Unlock()
	for key, b := range all {
		_, err := h.Meta.Bytes(ctx, key, b.size, func(_ context.Context, w artifact.Sink) error {
			_, err := w.Write(b.data)
			return err
		})
		if first == nil {
			first = err
		}
	}
	return first
}
