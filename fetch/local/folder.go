package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// folder reads an image as the reference tool's file registry keeps it: manifest.json,
// manifest.json.sig and blobs/sha256/<aa>/<hex>.zst, where <hex> is the digest of the decoded
// bytes. Nothing names the stored bytes.
type folder struct {
	ref     ref.Ref
	traffic *artifact.Counters
	trusted string // why no signature is needed; "": one is
}

var _ artifact.Source = (*folder)(nil)

func (f *folder) Root(ctx context.Context) (*artifact.Root, error) {
	r := &artifact.Root{Find: f.find}
	var err error
	path := filepath.Join(f.ref.Dir(), "manifest.json")
	if r.Manifest, err = readSmall(ctx, path, artifact.MaxSmall, f.traffic); err != nil {
		if errors.Is(err, artifact.ErrMissing) {
			err = fmt.Errorf("%q holds no image (it has no manifest.json): %w", f.ref.Dir(),
				artifact.ErrNotFound)
		}
		return nil, err
	}
	r.Signature, err = readSmall(ctx, filepath.Join(f.ref.Dir(), "manifest.json.sig"),
		artifact.MaxSmall, f.traffic)
	if errors.Is(err, artifact.ErrMissing) {
		r.Trusted, err = f.trusted, nil
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Head returns none: no tag names a folder's image.
func (f *folder) Head(context.Context) (string, error) { return "", nil }

func (f *folder) path(d pfimg.Digest) string { return filepath.Join(f.ref.Dir(), d.StoredPath()) }

// find looks for a blob's file.
func (f *folder) find(d pfimg.Digest) []artifact.Layer { return findStored(f.ref.Dir(), d) }

func (f *folder) Read(ctx context.Context, l artifact.Layer, _ int) (*artifact.Stored, error) {
	return openLocal(ctx, f.path(l.Logical), l.Size, f.traffic)
}

func findStored(dir string, d pfimg.Digest) []artifact.Layer {
	size, ok := statRegular(filepath.Join(dir, d.StoredPath()))
	if !ok {
		return nil
	}
	return []artifact.Layer{{Logical: d, Size: size, Decoded: -1}}
}
