package fetch

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/sign"
)

// Cargo is what is carried from one place to another: an opened image and the index of what it
// holds.
type Cargo struct {
	Image *Image
	Index *pfimg.Index
}

// Report says what a push or pull did. Blobs counts the image's blobs, config and signature
// included; each is either copied or was there already.
type Report struct {
	Blobs, Copied, Skipped int
	Bytes                  int64    // stored bytes copied
	Digest                 string   // "sha256:…" of the OCI manifest there; "": there is none
	Warnings               []string // one sentence each
}

// Meter counts while an image is copied. The zero value is ready; it is safe
// beside the carrying.
type Meter struct {
	uploading                        atomic.Bool
	blobs, allBlobs, bytes, allBytes atomic.Int64
	copied, skipped, copiedBytes     atomic.Int64
}

// Count is what a Meter shows.
type Count struct {
	Sending                bool // a push: checking is over, the upload goes on
	Blobs, AllBlobs        int64
	StoredBytes, AllStored int64
}

// Now returns the count so far. Each phase counts from the start.
func (m *Meter) Now() Count {
	return Count{
		Sending: m.uploading.Load(), Blobs: m.blobs.Load(), AllBlobs: m.allBlobs.Load(),
		StoredBytes: m.bytes.Load(), AllStored: m.allBytes.Load(),
	}
}

// Begin starts to count: so many blobs and bytes are to come.
func (m *Meter) Begin(blobs, bytes int64) { m.begin(blobs, bytes) }

// Add counts what has come; less than nothing when bytes come again.
func (m *Meter) Add(blobs, bytes int64) {
	m.blobs.Add(blobs)
	m.bytes.Add(bytes)
}

// begin starts a phase.
func (m *Meter) begin(blobs, bytes int64) {
	m.blobs.Store(0)
	m.bytes.Store(0)
	m.allBlobs.Store(blobs)
	m.allBytes.Store(bytes)
}

// Stored counts stored bytes that came.
func (m *Meter) Stored(n int64) { m.bytes.Add(n) }

// Skipped notes a blob that was there already.
func (m *Meter) Skipped(size int64) {
	m.skipped.Add(1)
	m.blobs.Add(1)
	m.bytes.Add(size)
}

// Copied notes a blob that was copied; its bytes were counted as they went.
func (m *Meter) Copied(size int64) {
	m.copied.Add(1)
	m.blobs.Add(1)
	m.copiedBytes.Add(size)
}

func (m *Meter) report() Report {
	copied, skipped := int(m.copied.Load()), int(m.skipped.Load())
	return Report{
		Blobs: copied + skipped, Copied: copied, Skipped: skipped, Bytes: m.copiedBytes.Load(),
	}
}

// verifyBlob proves a blob: one decode checks logical digest, size and end of stream, and the
// stored bytes, as they came, go to keep. size is the signed size in bytes, -1 when none is signed.
func (c Cargo) verifyBlob(
	ctx context.Context, d pfimg.Digest, size int64, keep *artifact.HashingWriter,
) (artifact.StoredBlob, error) {
	ctx, done, err := c.Image.use.begin(ctx)
	if err != nil {
		return artifact.StoredBlob{}, err
	}
	defer done()
	return c.Image.reader.Verify(ctx, d, size, keep)
}

// each runs work for every blob of the image, at most n at once, and returns what it made in image
// order. The index says which sizes are signed: those are not annotated.
func (c Cargo) each(ctx context.Context, n int,
	work func(ctx context.Context, d pfimg.Digest, size int64) (artifact.StoredBlob, error),
) ([]artifact.StoredBlob, error) {
	items := make([]artifact.StoredBlob, c.Index.Stats().Blobs)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	i := 0
	for d, size := range c.Index.Blobs() {
		if gctx.Err() != nil {
			break
		}
		into := &items[i]
		i++
		g.Go(func() error {
			it, err := work(gctx, d, size)
			if err != nil {
				return err
			}
			if c.Index.Signed(d) {
				it.Decoded = -1
			}
			*into = it
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return items, nil
}

// wireBytes returns the stored bytes of all blobs, as far as they are known.
func (c Cargo) wireBytes() (n int64) {
	for d := range c.Index.Blobs() {
		if size, _, ok := c.Image.Wire(d); ok && size > 0 {
			n = artifact.AddSize(n, size)
		}
	}
	return n
}

// signature returns the signature to carry: one by key when there is one, else the image's own,
// else one by the public default key, with a warning.
func (c Cargo) signature(key sign.Key) (sig []byte, warning string) {
	m := c.Image.manifest
	switch {
	case len(key) > 0:
		return sign.Sign(m.Raw, key), ""
	case m.Signature != nil:
		return m.Signature, ""
	}
	return sign.Sign(m.Raw, sign.Key(sign.DefaultKey)),
		"signed with the public default key, since no key was given: " +
			"that proves integrity and nothing about the author"
}

// ociManifest returns the OCI manifest for the destination: the image's own, when it says exactly
// what is carried, else a new one.
func (c Cargo) ociManifest(
	ctx context.Context, sig []byte, items []artifact.StoredBlob,
) ([]byte, error) {
	if c.verbatim(sig, items) {
		return c.ociBytes(ctx)
	}
	return artifact.WriteManifest(c.Image.manifest.Raw, sig, items)
}

// verbatim says that the image's own OCI manifest lists the parts that are carried, each once, and
// nothing else.
func (c Cargo) verbatim(sig []byte, items []artifact.StoredBlob) bool {
	r := c.Image.reader.Root()
	if r.OCI == nil || len(r.OCI.Signatures) != 1 || !bytes.Equal(sig, r.Signature) ||
		r.OCI.Layers != 1+len(items) || len(r.OCI.Unlabelled) > 0 {
		return false
	}
	for _, it := range items {
		if l := r.Find(it.Logical); len(l) != 1 || l[0].Wire != it.Wire {
			return false
		}
	}
	return true
}

// ociBytes reads the image's own OCI manifest again.
func (c Cargo) ociBytes(ctx context.Context) ([]byte, error) {
	im := c.Image
	want, err := pfimg.ParseDigest(im.reader.Root().Digest)
	if err != nil {
		return nil, err
	}
	raw, err := im.reader.Root().Raw(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: OCI manifest: %w", im.name(), err)
	}
	if got := artifact.DigestOf(raw); got != artifact.WireDigest(want) {
		return nil, fmt.Errorf("%s: OCI manifest %s: the stored bytes hash to %s: %w",
			im.name(), want, got, pfimg.ErrIntegrity)
	}
	return raw, nil
}
