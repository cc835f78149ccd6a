package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// store reads an image from a local ProcessFork store: images/<id>.json, which must hash to the id,
// and blobs as a folder has them. It has no signatures.
type store struct {
	ref     ref.Ref
	traffic *artifact.Counters
}

var _ artifact.Source = (*store)(nil)

func (s *store) Root(ctx context.Context) (*artifact.Root, error) {
	hex := pfimg.Digest(s.ref.Digest()).Hex()
	raw, err := readSmall(ctx, filepath.Join(s.ref.Dir(), "images", hex+".json"), artifact.MaxSmall,
		s.traffic)
	if errors.Is(err, artifact.ErrMissing) {
		return nil, fmt.Errorf("no image %s in the store %q: %w", hex, s.ref.Dir(),
			artifact.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if got := pfimg.Digest(sha256.Sum256(raw)); got != s.ref.Digest() {
		return nil, fmt.Errorf("the manifest of %s hashes to %s: %w", hex, got, pfimg.ErrIntegrity)
	}
	return &artifact.Root{
		Manifest: raw,
		Trusted:  "a local store is trusted as your own files are",
		Find:     s.find,
	}, nil
}

// Head returns none: an image of a store is named by its id.
func (s *store) Head(context.Context) (string, error) { return "", nil }

func (s *store) find(d pfimg.Digest) []artifact.Layer { return findStored(s.ref.Dir(), d) }

func (s *store) Read(ctx context.Context, l artifact.Layer, _ int) (*artifact.Stored, error) {
	return openLocal(ctx, filepath.Join(s.ref.Dir(), l.Logical.StoredPath()), l.Size, s.traffic)
}
