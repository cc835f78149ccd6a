package pfimg

import (
	"context"
	"fmt"
	"io"

	"github.com/pfmount/pfmount/fetch/strictjson"
)

// Opener opens a blob for reading: its decoded bytes, which the Opener verified against the digest.
type Opener func(ctx context.Context, d Digest) (io.ReadCloser, error)

// Build reads the file tree (world.fs) and the page table (cache.manifest) of a manifest as streams
// and returns the image's index; it opens no other blob. Errors of the opener and of its readers
// are wrapped; damaged or lying bytes are ErrIntegrity, too many entries ErrUnsupported.
func Build(ctx context.Context, m *Manifest, open Opener) (*Index, error) {
	return build(ctx, m, open, MaxEntries)
}

func build(ctx context.Context, m *Manifest, open Opener, maxEntries int) (*Index, error) {
	b := newBuilder(maxEntries)
	top := m.TopLevel()
	for _, t := range top {
		b.blobs.add(t.Digest) // first of all: they are the first in image order
	}
	pages := b.layout(m)
	treeSize, err := readBlob(ctx, "world.fs", m.World.FS, open, b.readTree)
	if err != nil {
		return nil, err
	}
	var count int
	tableSize, err := readBlob(
		ctx,
		"cache.manifest",
		m.Cache.Manifest,
		open,
		func(s *strictjson.Reader) (err error) {
			count, err = readPages(b, s, pages)
			return err
		},
	)
	if err != nil {
		return nil, err
	}
	x := b.freeze(m)
	x.stats.Pages = count
	// These two were read to their ends, so their sizes are known like those that SetSize tells.
	x.SetSize(m.World.FS, treeSize)
	x.SetSize(m.Cache.Manifest, tableSize)
	return x, nil
}

// readBlob reads a JSON blob to its end and returns how many bytes it has.
func readBlob(ctx context.Context, name string, d Digest, open Opener,
	value func(*strictjson.Reader) error,
) (size int64, err error) {
	r, err := open(ctx, d)
	if err != nil {
		return 0, fmt.Errorf("%s: open %s: %w", name, d, err)
	}
	defer func() {
		if closing := r.Close(); closing != nil && err == nil {
			err = fmt.Errorf("%s: close %s: %w", name, d, closing)
		}
	}()
	return scan(ctx, name, r, value)
}
