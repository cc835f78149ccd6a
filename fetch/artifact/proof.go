package artifact

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// StoredBlob is a blob that was proved: where its stored bytes are, and what they are.
type StoredBlob struct {
	Logical pfimg.Digest
	Source  Layer
	Wire    WireDigest
	Size    int64 // stored bytes
	Decoded int64 // to be annotated; -1: the size is signed
}

// HashingWriter is a Sink of stored bytes: it hashes and counts them, and keeps them in a file when
// there is one.
type HashingWriter struct {
	hash hash.Hash
	size int64
	file *os.File // nil: nothing is kept
	// told of bytes that came, and with less than 0 of bytes that come again; nil: not told
	progress func(int64)
	// of file; kept here because io.Copy may stop before it meets a write error
	err error
}

// NewHashingWriter returns a HashingWriter. file and progress may be nil.
func NewHashingWriter(file *os.File, progress func(int64)) *HashingWriter {
	if progress == nil {
		progress = func(int64) {}
	}
	return &HashingWriter{hash: sha256.New(), file: file, progress: progress}
}

func (k *HashingWriter) Write(p []byte) (int, error) {
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
func (k *HashingWriter) Reset() error {
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

// Forget takes back what was counted of a blob that did not come.
func (k *HashingWriter) Forget() error {
	k.file = nil
	return k.Reset()
}

// teeSource is a source that lets a hashingWriter see what is read.
type teeSource struct {
	Source
	keep *HashingWriter
	last Layer // the one that was read last
}

func (t *teeSource) Read(ctx context.Context, l Layer, wrong int) (*Stored, error) {
	if err := t.keep.Reset(); err != nil {
		return nil, err
	}
	from, err := t.Source.Read(ctx, l, wrong)
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

// Verify proves a blob: one decode checks digest, size and end of stream, and the stored bytes go
// to keep as they came.
func (r *Reader) Verify(ctx context.Context, d pfimg.Digest, size int64, keep *HashingWriter,
) (StoredBlob, error) {
	t := &teeSource{Source: r.src, keep: keep}
	tapped := *r
	tapped.src = t
	var decoded Discard
	if err := tapped.Blob(ctx, d, size, &decoded); err != nil {
		return StoredBlob{}, err
	}
	if keep.err != nil {
		return StoredBlob{}, keep.err
	}
	return StoredBlob{
		Logical: d,
		Source:  t.last,
		Wire:    WireDigest(keep.hash.Sum(nil)),
		Size:    keep.size,
		Decoded: int64(decoded),
	}, nil
}

// Layers returns the layers that claim a blob, best first.
func (r *Reader) Layers(ctx context.Context, d pfimg.Digest) ([]Layer, error) {
	if layers := r.root.Find(d); len(layers) > 0 {
		return layers, nil
	}
	l, err := r.unlabelled.find(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%s: blob %s: %w", r.Image, d, err)
	}
	return []Layer{l}, nil
}
