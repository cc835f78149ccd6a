package reader

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/artifact"
)

// Records are short texts that the cache keeps by name.
type Records struct{ store *cache.Store }

// Get returns what was last Put under a name. It is fs.ErrNotExist that there is nothing.
func (r Records) Get(name string) ([]byte, error) { return r.store.Record(name) }

// Put keeps data under a name.
func (r Records) Put(name string, data []byte) error { return r.store.SetRecord(name, data) }

// meta keeps manifests, configs and signatures in the cache. They are blobs under their own
// digests, so they share its checks and quota.
type meta struct{ Records }

var _ fetch.Meta = meta{}

func (m meta) Bytes(
	ctx context.Context, key [32]byte, size int64, fill func(context.Context, artifact.Sink) error,
) ([]byte, error) {
	if fill == nil {
		if !m.store.Has(key) {
			return nil, fs.ErrNotExist
		}
		fill = func(context.Context, artifact.Sink) error { // it is damaged, or was removed
			return fmt.Errorf("%w: %w", cache.ErrUnwanted, fs.ErrNotExist)
		}
	}
	f, err := m.store.Open(ctx, key, size, func(ctx context.Context, w cache.Sink) error {
		return fill(ctx, w)
	})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, f.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}
