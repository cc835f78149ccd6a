package fetch

import (
	"context"
	"errors"
	"net/http"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Resolve asks the image's source which OCI manifest the image's tag names now; "" for an image that no tag names. A
// registry is asked for headers, and only one that tells no digest in them for the manifest. Nothing is verified: the
// answer says whether the tag has moved on, not what is there.
func (im *Image) Resolve(ctx context.Context) (string, error) {
	ctx, done, err := im.use.begin(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	return im.src.Head(ctx)
}

// Head asks for the headers of the tag's manifest.
func (r *registry) Head(ctx context.Context) (string, error) {
	if r.ref.Pinned() {
		return "", nil
	}
	d, err := r.resolve(ctx)
	if err != nil {
		return "", err
	}
	return d.String(), nil
}

// resolve returns the digest of the manifest that the tag names.
func (r *registry) resolve(ctx context.Context) (artifact.WireDigest, error) {
	if r.down != nil {
		return artifact.WireDigest{}, r.down
	}
	retry := retrier{policy: r.c.policy}
	for {
		d, err := r.resolveOnce(ctx)
		if err == nil {
			return d, nil
		}
		if err = retry.again(ctx, err); err != nil {
			return artifact.WireDigest{}, err
		}
	}
}

func (r *registry) resolveOnce(ctx context.Context) (artifact.WireDigest, error) {
	resp, err := r.c.do(ctx, call{method: http.MethodHead, path: "manifests/" + r.ref.Tag(), header: http.Header{"Accept": {accepted}}})
	var status *statusError
	switch {
	case errors.As(err, &status) && (status.code == http.StatusMethodNotAllowed || status.code == http.StatusNotImplemented):
	case err != nil:
		return artifact.WireDigest{}, err
	default:
		finish(resp)
		if err := manifestAnswer(resp); err != nil {
			return artifact.WireDigest{}, err
		}
		if d, err := pfimg.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
			return artifact.WireDigest(d), nil
		}
	}
	_, d, err := r.manifestByTag(ctx)
	return d, err
}
