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
			count, err = b.readPages(s, pages)
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

// layout makes the names that every image has, and returns the directory of the pages. Their order
// decides nothing: rows come from the names.
func (b *builder) layout(m *Manifest) (pages uint32) {
	b.file(0, "manifest.json", none)
	b.dir(b.dir(0, blobsDir), blobsAlgorithm)
	world, cache, model := b.dir(0, "world"), b.dir(0, "cache"), b.dir(0, "model")
	b.tree.root = b.dir(world, "fs")
	b.file(world, "env.json", b.blobs.add(m.World.Env))
	b.file(world, "procs.json", b.blobs.add(m.World.Procs))
	b.file(cache, "manifest.json", b.blobs.add(m.Cache.Manifest))
	b.file(model, "base", b.blobs.add(m.Model.Base))
	b.file(model, "diff.json", b.blobs.add(m.Model.Diff))
	b.file(b.dir(0, "effects"), "ledger.jsonl", b.blobs.add(m.Effects.Ledger))
	b.file(b.dir(0, "trace"), "messages.jsonl", b.blobs.add(m.Trace.Messages))
	return b.dir(cache, "pages")
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
