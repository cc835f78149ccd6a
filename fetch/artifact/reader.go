package artifact

import (
	"log/slog"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Config holds what all readers of an image have in common.
type Config struct {
	Image    string // its name, for messages
	Log      *slog.Logger
	MaxBlob  int64 // decoded bytes of a blob that has no signed size
	Decoders *Decoders
}

// Reader turns the stored bytes of one place into verified blobs. It knows which layers claim which
// blob, and neither the signature nor the manifest that names the blobs.
type Reader struct {
	Config
	src        Source
	root       *Root
	unlabelled *unlabelledLayers
}

// NewReader returns a reader of the layers of r, which are at src.
func NewReader(c Config, src Source, r *Root) *Reader {
	rd := &Reader{Config: c, src: src, root: r}
	rd.unlabelled = newUnlabelled(rd, r.OCI)
	return rd
}

// Root returns what the image starts from.
func (r *Reader) Root() *Root { return r.root }

// Wire returns a blob's stored size in bytes, and its decoded size when an annotation tells (-1:
// none does). The latter is not signed: a hint of what to expect. ok is false when the image does
// not have the blob. An image may hold layers that do not say which blob they are; then a blob
// without a layer of its own is ok with a size of -1: Blob will look.
func (r *Reader) Wire(d pfimg.Digest) (wire, decoded int64, ok bool) {
	if l := r.root.Find(d); len(l) > 0 {
		return l[0].Size, l[0].Decoded, true
	}
	return r.unlabelled.wire(d)
}
