package fetch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Limits of what an image starts from, in bytes.
const (
	maxManifest = 64 << 20 // an OCI manifest: 240,000 layers
	maxSmall    = 1 << 20  // pf manifest and signature, each
)

// source is where an image's stored bytes are.
type source interface {
	// root returns what the image starts from. Nothing in it is verified but digests.
	root(ctx context.Context) (*root, error)
	// read returns the stored bytes of a layer. wrong is how often they were the wrong ones before: then it asks past
	// every cache on the way and, where several can be asked, at the next.
	read(ctx context.Context, l layer, wrong int) (*stored, error)
	// head returns "sha256:…" of the OCI manifest that the image's tag names now; "" where no tag names one. A registry
	// is asked for headers, and for the manifest only when it tells no digest in them.
	head(ctx context.Context) (string, error)
}

// root is what an image starts from.
type root struct {
	manifest  []byte // the pf manifest
	signature []byte // nil: there is none
	trusted   string // why none is needed; "": one is
	digest    string // of the OCI manifest; "" where there is none
	oci       *ociManifest
	raw       func(context.Context) ([]byte, error) // reads the OCI manifest again: a mount has no use for its bytes
	find      func(pfimg.Digest) []layer            // the layers that claim a digest, best first
	places    int                                   // where else bytes can be asked for that were wrong; 0: nowhere
}

// stored are the stored bytes of a layer.
type stored struct {
	io.ReadCloser
	size int64 // in bytes
	from func() string
	net  bool // they come over a network: wrong ones are worth another try
}

// readOCI finishes the root of an image that is an OCI artifact: config and signature at once, by small.
func readOCI(ctx context.Context, m *ociManifest, digest string, small func(context.Context, descriptor) ([]byte, error)) (*root, error) {
	if n := len(m.signatures); n > 1 {
		return nil, fmt.Errorf("the image has two signature layers, and their unsigned order would decide: %w", pfimg.ErrIntegrity)
	}
	r := &root{digest: digest, oci: m, find: m.named.find}
	g, ctx := errgroup.WithContext(ctx)
	load := func(what string, d descriptor, into *[]byte) {
		g.Go(func() error {
			if d.size > maxSmall {
				return fmt.Errorf("%s %s: %d bytes, the limit is %d: %w", what, d.wire, d.size, maxSmall, pfimg.ErrIntegrity)
			}
			b, err := small(ctx, d)
			if err != nil {
				return fmt.Errorf("%s %s: %w", what, d.wire, err)
			}
			*into = b
			return nil
		})
	}
	load("config", m.config, &r.manifest)
	if len(m.signatures) == 1 {
		load("signature", m.signatures[0], &r.signature)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return r, nil
}

// wrongBytes are stored bytes other than the manifest says. Something between the registry and us may have changed
// them, so they are worth one more request past every cache.
type wrongBytes struct {
	text string
	from string
}

func (e *wrongBytes) Error() string { return e.text + ": " + pfimg.ErrIntegrity.Error() }
func (e *wrongBytes) Unwrap() error { return pfimg.ErrIntegrity }

// copyHashed copies what must have the digest and size of d (size -1: at most limit) to w. The bytes themselves are
// wrong, not the way to them, when the error is *wrongBytes.
func copyHashed(w io.Writer, from *stored, d descriptor, limit int64) error {
	if d.size >= 0 {
		limit = d.size
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, w), io.LimitReader(from, limit+1))
	switch {
	case err != nil:
		return err
	case n > limit && d.size < 0:
		return fmt.Errorf("longer than %d bytes: %w", limit, pfimg.ErrIntegrity)
	case d.size >= 0 && n != d.size:
		return &wrongBytes{text: fmt.Sprintf("%d bytes or more, not %d", n, d.size), from: from.from()}
	}
	if got := wireDigest(h.Sum(nil)); got != d.wire {
		return &wrongBytes{text: fmt.Sprintf("the stored bytes hash to %s", got), from: from.from()}
	}
	return nil
}
