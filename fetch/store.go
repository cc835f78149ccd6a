package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// store reads an image from a local ProcessFork store: images/<id>.json, which must hash to the id, and blobs as a
// folder has them. It has no signatures.
type store struct {
	ref     ref.Ref
	traffic *counters
}

var _ source = (*store)(nil)

func (s *store) root(ctx context.Context) (*root, error) {
	hex := pfimg.Digest(s.ref.Digest()).Hex()
	raw, err := readSmall(ctx, filepath.Join(s.ref.Dir(), "images", hex+".json"), maxSmall, s.traffic)
	if errors.Is(err, ErrMissing) {
		return nil, fmt.Errorf("no image %s in the store %q: %w", hex, s.ref.Dir(), ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if got := pfimg.Digest(sha256.Sum256(raw)); got != s.ref.Digest() {
		return nil, fmt.Errorf("the manifest of %s hashes to %s: %w", hex, got, pfimg.ErrIntegrity)
	}
	return &root{manifest: raw, trusted: "a local store is trusted as your own files are", find: s.find}, nil
}

// head returns none: an image of a store is named by its id.
func (s *store) head(context.Context) (string, error) { return "", nil }

func (s *store) find(d pfimg.Digest) []layer { return findZst(s.ref.Dir(), d) }

func (s *store) read(ctx context.Context, l layer, _ int) (*stored, error) {
	return openLocal(ctx, zstPath(s.ref.Dir(), l.logical), l.size, s.traffic)
}
