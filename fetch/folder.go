package fetch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// folder reads an image as the reference tool's file registry keeps it: manifest.json, manifest.json.sig and
// blobs/sha256/<aa>/<hex>.zst, where <hex> is the digest of the decoded bytes. Nothing names the stored bytes.
type folder struct {
	ref     ref.Ref
	traffic *counters
	trusted string // why no signature is needed; "": one is
}

var _ source = (*folder)(nil)

func (f *folder) root(ctx context.Context) (*root, error) {
	r := &root{find: f.find}
	var err error
	if r.manifest, err = readSmall(ctx, filepath.Join(f.ref.Dir(), "manifest.json"), maxSmall, f.traffic); err != nil {
		if errors.Is(err, ErrMissing) {
			err = fmt.Errorf("%q holds no image (it has no manifest.json): %w", f.ref.Dir(), ErrNotFound)
		}
		return nil, err
	}
	r.signature, err = readSmall(ctx, filepath.Join(f.ref.Dir(), "manifest.json.sig"), maxSmall, f.traffic)
	if errors.Is(err, ErrMissing) {
		r.trusted, err = f.trusted, nil
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// head returns none: no tag names a folder's image.
func (f *folder) head(context.Context) (string, error) { return "", nil }

func (f *folder) path(d pfimg.Digest) string { return zstPath(f.ref.Dir(), d) }

// find looks for a blob's file.
func (f *folder) find(d pfimg.Digest) []layer { return findZst(f.ref.Dir(), d) }

func (f *folder) read(ctx context.Context, l layer, _ int) (*stored, error) {
	return openLocal(ctx, f.path(l.logical), l.size, f.traffic)
}

func zstPath(dir string, d pfimg.Digest) string {
	hex := d.Hex()
	return filepath.Join(dir, "blobs", "sha256", hex[:2], hex+".zst")
}

func findZst(dir string, d pfimg.Digest) []layer {
	size, ok := statRegular(zstPath(dir, d))
	if !ok {
		return nil
	}
	return []layer{{logical: d, size: size, decoded: -1}}
}
