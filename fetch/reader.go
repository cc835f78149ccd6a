package fetch

import "log/slog"

// reader turns the stored bytes of one place into verified blobs. It knows which layers claim which blob, and neither
// the signature nor the manifest that names the blobs.
type reader struct {
	name     string // of the image, for messages
	log      *slog.Logger
	maxBlob  int64 // decoded bytes of a blob that has no signed size
	src      source
	root     *root
	decoders *decoders
	unnamed  *unlabelledLayers
}

// newReader returns a reader of the layers of r, which are at src, within the image's bounds.
func (im *Image) newReader(src source, r *root) *reader {
	return &reader{
		name: im.name(), log: im.options.Log, maxBlob: im.options.MaxBlobSize,
		src: src, root: r, decoders: im.decoders,
	}
}
