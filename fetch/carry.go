package fetch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/sign"
)

// Cargo is what is carried from one place to another: an opened image and the index of what it holds.
type Cargo struct {
	Image *Image
	Index *pfimg.Index
}

// Report says what a push or pull did. Blobs counts the image's blobs, config and signature included; each is either
// copied or was there already.
type Report struct {
	Blobs, Copied, Skipped int
	Bytes                  int64    // stored bytes copied
	Digest                 string   // "sha256:…" of the OCI manifest at the destination; "" where there is none
	Warnings               []string // one sentence each
}

// Meter counts while an image is carried, for who shows it. The zero value is ready; it is safe beside the carrying.
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

// stored counts stored bytes that came.
func (m *Meter) stored(n int64) { m.bytes.Add(n) }

// skip notes a blob that was there already.
func (m *Meter) skip(size int64) {
	m.skipped.Add(1)
	m.blobs.Add(1)
	m.bytes.Add(size)
}

// copy notes a blob that was copied; its bytes were counted as they went.
func (m *Meter) copy(size int64) {
	m.copied.Add(1)
	m.blobs.Add(1)
	m.copiedBytes.Add(size)
}

func (m *Meter) report() Report {
	copied, skipped := int(m.copied.Load()), int(m.skipped.Load())
	return Report{Blobs: copied + skipped, Copied: copied, Skipped: skipped, Bytes: m.copiedBytes.Load()}
}

// storedBlob is a blob that was proved: where its stored bytes are, and what they are.
type storedBlob struct {
	logical pfimg.Digest
	source  layer
	wire    wireDigest
	size    int64 // stored bytes
	decoded int64 // to be annotated; -1: the size is signed
}

// hashingWriter is a Sink of stored bytes: it hashes and counts them, and keeps them in a file when there is one.
type hashingWriter struct {
	hash     hash.Hash
	size     int64
	file     *os.File    // nil: nothing is kept
	progress func(int64) // told of bytes that came, and with less than 0 of bytes that come again; nil: not told
	err      error       // of file; kept here because io.Copy may stop before it meets a write error
}

func newHashingWriter(file *os.File, progress func(int64)) *hashingWriter {
	if progress == nil {
		progress = func(int64) {}
	}
	return &hashingWriter{hash: sha256.New(), file: file, progress: progress}
}

func (k *hashingWriter) Write(p []byte) (int, error) {
	k.hash.Write(p)
	k.size += int64(len(p))
	k.progress(int64(len(p)))
	if k.file == nil {
		return len(p), nil
	}
	n, err := k.file.Write(p)
	if err != nil {
		k.err = err
	}
	return n, err
}

// Reset drops what was written.
func (k *hashingWriter) Reset() error {
	k.hash.Reset()
	k.err = nil
	k.progress(-k.size)
	if k.file == nil || k.size == 0 {
		k.size = 0
		return nil
	}
	k.size = 0
	if err := k.file.Truncate(0); err != nil {
		return err
	}
	_, err := k.file.Seek(0, io.SeekStart)
	return err
}

// forget takes back what was counted of a blob that did not come.
func (k *hashingWriter) forget() error {
	k.file = nil
	return k.Reset()
}

// countDiscard is a Sink that counts decoded bytes and drops them.
type countDiscard int64

func (t *countDiscard) Write(p []byte) (int, error) { *t += countDiscard(len(p)); return len(p), nil }

// Reset starts again.
func (t *countDiscard) Reset() error { *t = 0; return nil }

// teeSource is a source that lets a hashingWriter see what is read.
type teeSource struct {
	source
	keep *hashingWriter
	last layer // the one that was read last
}

func (t *teeSource) read(ctx context.Context, l layer, wrong int) (*stored, error) {
	if err := t.keep.Reset(); err != nil {
		return nil, err
	}
	from, err := t.source.read(ctx, l, wrong)
	if err != nil {
		return nil, err
	}
	t.last = l
	from.ReadCloser = teeReader{from.ReadCloser, t.keep}
	return from, nil
}

type teeReader struct {
	io.ReadCloser
	w io.Writer
}

func (t teeReader) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if n > 0 {
		if _, werr := t.w.Write(p[:n]); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// take proves a blob: one decode checks logical digest, size and end of stream, and the stored bytes, as they came, go
// to keep. size is the signed size in bytes, -1 when none is signed.
func (im *Image) verifyBlob(ctx context.Context, d pfimg.Digest, size int64, keep *hashingWriter) (storedBlob, error) {
	ctx, done, err := im.use.begin(ctx)
	if err != nil {
		return storedBlob{}, err
	}
	defer done()
	return im.reader.verify(ctx, d, size, keep)
}

// prove is Image.take within its bounds.
func (r *reader) verify(ctx context.Context, d pfimg.Digest, size int64, keep *hashingWriter) (storedBlob, error) {
	t := &teeSource{source: r.src, keep: keep}
	tapped := *r
	tapped.src = t
	var decoded countDiscard
	if err := tapped.blob(ctx, d, size, &decoded); err != nil {
		return storedBlob{}, err
	}
	if keep.err != nil {
		return storedBlob{}, keep.err
	}
	return storedBlob{logical: d, source: t.last, wire: wireDigest(keep.hash.Sum(nil)), size: keep.size, decoded: int64(decoded)}, nil
}

// each runs work for every blob of the image, at most n at once, and returns what it made in image order. The index
// says which sizes are signed: those are not annotated.
func (c Cargo) each(ctx context.Context, n int, work func(ctx context.Context, d pfimg.Digest, size int64) (storedBlob, error)) ([]storedBlob, error) {
	items := make([]storedBlob, c.Index.Stats().Blobs)
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
				it.decoded = -1
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
			n = addSize(n, size)
		}
	}
	return n
}

// signature returns the signature to carry: one by key when there is one, else the image's own, else one by the public
// default key, with a warning.
func (c Cargo) signature(key sign.Key) (sig []byte, warning string) {
	m := c.Image.manifest
	switch {
	case len(key) > 0:
		return sign.Sign(m.Raw, key), ""
	case m.Signature != nil:
		return m.Signature, ""
	}
	return sign.Sign(m.Raw, sign.Key(sign.DefaultKey)),
		"signed with the public default key, since no key was given: that proves integrity and nothing about the author"
}

// layersOf returns the layers that claim a blob, best first.
func (r *reader) layersOf(ctx context.Context, d pfimg.Digest) ([]layer, error) {
	if layers := r.root.find(d); len(layers) > 0 {
		return layers, nil
	}
	l, err := r.unnamed.find(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%s: blob %s: %w", r.name, d, err)
	}
	return []layer{l}, nil
}
