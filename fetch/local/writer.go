package local

import (
	"context"
	"fmt"
	"os"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// Identity tells an image from others that a place may hold.
type Identity struct {
	CID      pfimg.Digest
	Manifest []byte // the pf manifest
	OCI      string // "sha256:…" of the OCI manifest; "" where there is none
}

// destination is a kind of local place that an image is written to.
type destination interface {
	// prepare refuses a place that holds another image.
	prepare(ctx context.Context, id Identity) error
	// path is where the stored bytes of a blob go; known is false while wire is zero and the place
	// goes by it.
	path(logical pfimg.Digest, wire artifact.WireDigest) (path string, known bool)
	// commit makes the place show the image, by the one publish of temp.
	commit(ctx context.Context, temp *tempDir, p Parts) error
}

// Parts are what a place shows of an image beside its blobs.
type Parts struct {
	Manifest  []byte // the pf manifest
	Signature []byte // of Manifest; stores have none
	OCI       []byte // the OCI manifest; only layouts have one
}

// Needs says which Parts a place has beside the pf manifest.
type Needs struct{ Signature, OCI bool }

// Writer writes one image to a local place: its blobs first, each whole, and last what makes the
// place show the image.
type Writer struct {
	kind ref.Kind
	dest destination
	view artifact.Source // reads what is at the destination
	temp *tempDir
}

// NewWriter prepares a local place for an image. A place that holds another image is ErrTaken. The
// caller must call Close.
func NewWriter(ctx context.Context, dst ref.Ref, id Identity) (*Writer, error) {
	w := &Writer{kind: dst.Kind(), view: Open(dst, "", new(artifact.Counters))}
	switch dst.Kind() {
	case ref.Folder:
		w.dest = &folderDest{dir: dst.Dir()}
	case ref.Store:
		w.dest = &storeDest{ref: dst}
	case ref.Layout:
		w.dest = &layoutDest{ref: dst}
	default:
		return nil, fmt.Errorf("%s is no local place: %w", safetext.Clip(dst.String(), 300),
			ref.ErrInvalid)
	}
	err := w.dest.prepare(ctx, id)
	if err == nil {
		w.temp, err = newTempDir(dst.Dir())
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Needs returns which parts Commit wants.
func (w *Writer) Needs() Needs {
	return Needs{Signature: w.kind != ref.Store, OCI: w.kind == ref.Layout}
}

// Have returns the layer that a blob has at the place, and where it is read: it may be damaged. l
// is the layer that it would have.
func (w *Writer) Have(l artifact.Layer,
) (there artifact.Layer, from artifact.Source, path string, ok bool) {
	path, known := w.dest.path(l.Logical, l.Wire)
	if !known {
		return artifact.Layer{}, nil, "", false
	}
	n, ok := statRegular(path)
	there = artifact.Layer{Logical: l.Logical, Size: n, Decoded: -1}
	if w.kind == ref.Layout {
		there.Wire = l.Wire
	}
	return there, w.view, path, ok
}

// Create makes an empty file for the stored bytes of a blob.
func (w *Writer) Create() (*os.File, error) { return w.temp.create() }

// Put gives a file of Create, which is whole and closed, the name of its blob.
func (w *Writer) Put(name string, logical pfimg.Digest, wire artifact.WireDigest) error {
	path, _ := w.dest.path(logical, wire)
	return w.temp.place(name, path)
}

// Commit makes the place show the image. When it returns nil, the image survives a power cut.
func (w *Writer) Commit(ctx context.Context, p Parts) error { return w.dest.commit(ctx, w.temp, p) }

// Close removes what was written and did not get its name.
func (w *Writer) Close() { w.temp.remove() }
