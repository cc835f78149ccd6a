package artifact

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
	MaxManifest = 64 << 20 // an OCI manifest: 240,000 layers
	MaxSmall    = 1 << 20  // pf manifest and signature, each
)

// Source is where an image's stored bytes are.
type Source interface {
	// Root returns what the image starts from. Nothing in it is verified but digests.
	Root(ctx context.Context) (*Root, error)
	// Read returns the stored bytes of a layer. wrong is how often they were the wrong ones before:
	// then it asks past every cache on the way and, where several can be asked, at the next.
	Read(ctx context.Context, l Layer, wrong int) (*Stored, error)
	// Head returns "sha256:…" of the OCI manifest that the image's tag names now; "" where no tag
	// names one. A registry is asked for headers, and for the manifest only when it tells no digest
	// in them.
	Head(ctx context.Context) (string, error)
}

// Root is what an image starts from.
type Root struct {
	Manifest  []byte // the pf manifest
	Signature []byte // nil: there is none
	Trusted   string // why none is needed; "": one is
	Digest    string // of the OCI manifest; "" where there is none
	OCI       *Manifest
	// reads the OCI manifest again: a mount has no use for its bytes
	Raw  func(context.Context) ([]byte, error)
	Find func(pfimg.Digest) []Layer // the layers that claim a digest, best first
	// where else bytes can be asked for that were wrong; 0: nowhere
	Places int
}

// Stored are the stored bytes of a layer.
type Stored struct {
	io.ReadCloser
	Size int64 // in bytes
	From func() string
	Net  bool // they come over a network: wrong ones are worth another try
}

// ReadRoot finishes the root of an image that is an OCI artifact: config and signature at once, by
// small.
func ReadRoot(ctx context.Context, m *Manifest, digest string,
	small func(context.Context, Descriptor) ([]byte, error),
) (*Root, error) {
	if n := len(m.Signatures); n > 1 {
		return nil, fmt.Errorf(
			"the image has two signature layers, and their unsigned order would decide: %w",
			pfimg.ErrIntegrity)
	}
	r := &Root{Digest: digest, OCI: m, Find: m.Named.Find}
	g, ctx := errgroup.WithContext(ctx)
	load := func(what string, d Descriptor, into *[]byte) {
		g.Go(func() error {
			if d.Size > MaxSmall {
				return fmt.Errorf("%s %s: %d bytes, the limit is %d: %w", what, d.Wire, d.Size,
					MaxSmall, pfimg.ErrIntegrity)
			}
			b, err := small(ctx, d)
			if err != nil {
				return fmt.Errorf("%s %s: %w", what, d.Wire, err)
			}
			*into = b
			return nil
		})
	}
	load("config", m.Config, &r.Manifest)
	if len(m.Signatures) == 1 {
		load("signature", m.Signatures[0], &r.Signature)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return r, nil
}

// WrongBytes are stored bytes other than the manifest says. Something between the registry and us
// may have changed them, so they are worth one more request past every cache.
type WrongBytes struct {
	Text string
	From string
}

func (e *WrongBytes) Error() string { return e.Text + ": " + pfimg.ErrIntegrity.Error() }
func (e *WrongBytes) Unwrap() error { return pfimg.ErrIntegrity }

// CopyHashed copies what must have the digest and size of d (size -1: at most limit) to w. The
// bytes themselves are wrong, not the way to them, when the error is *wrongBytes.
func CopyHashed(w io.Writer, from *Stored, d Descriptor, limit int64) error {
	if d.Size >= 0 {
		limit = d.Size
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, w), io.LimitReader(from, limit+1))
	switch {
	case err != nil:
		return err
	case n > limit && d.Size < 0:
		return fmt.Errorf("longer than %d bytes: %w", limit, pfimg.ErrIntegrity)
	case d.Size >= 0 && n != d.Size:
		return &WrongBytes{
			Text: fmt.Sprintf("%d bytes or more, not %d", n, d.Size),
			From: from.From(),
		}
	}
	if got := WireDigest(h.Sum(nil)); got != d.Wire {
		return &WrongBytes{Text: fmt.Sprintf("the stored bytes hash to %s", got), From: from.From()}
	}
	return nil
}
