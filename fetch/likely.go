package fetch

import (
	"context"
	"slices"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// What is fetched before the signed manifest says that it is part of the image: the blobs which that manifest names
// itself. They are the first layers of an artifact, in a known order, less those that occurred before.
const maxLikelyBytes = 1 << 20 // stored bytes of each

// Likely is called once while an image is opened, when the OCI manifest is there and before config and signature are. It
// gets the blobs that the signed manifest probably names and how to fetch one: blob writes only what hashes to the digest
// and keeps the bounds of Image.Blob. Whether it is part of the image is not known before Open has returned, so it may be
// kept under its digest and must be shown to nobody. Likely must not wait for blob. Close ends what is under way.
type Likely func(blobs []pfimg.Digest, blob func(ctx context.Context, d pfimg.Digest, w artifact.Sink) error)

// likely calls Options.Likely. The image is not open yet, so blobs come through a reader of its own.
func (im *Image) likely(r *artifact.Root) {
	view := im.newReader(im.src, &artifact.Root{Find: r.Find, Places: r.Places})
	var blobs []pfimg.Digest
	for _, l := range r.OCI.First {
		if l.Size <= maxLikelyBytes && !slices.Contains(blobs, l.Logical) {
			blobs = append(blobs, l.Logical)
		}
	}
	im.options.Likely(blobs, func(ctx context.Context, d pfimg.Digest, w artifact.Sink) error {
		ctx, done, err := im.use.begin(ctx)
		if err != nil {
			return err
		}
		defer done()
		return view.Blob(ctx, d, -1, w)
	})
}
