package fetch

import (
	"context"
	"errors"
	"net/http"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// manifestByHead asks for the digest of a tag that was opened before: its manifest is most likely in the cache. Where
// that is no way (no HEAD, no digest in the answer, or a no that only a GET explains, as 401 does not need) it asks for
// the manifest itself.
func (r *registry) manifestByHead(ctx context.Context) ([]byte, artifact.WireDigest, error) {
	resp, err := r.c.do(ctx, call{method: http.MethodHead, path: "manifests/" + r.ref.Tag(), header: http.Header{"Accept": {accepted}}})
	var status *statusError
	switch {
	case err == nil:
	case errors.As(err, &status) && !retriable(err) && status.code != http.StatusUnauthorized:
		return r.manifestByTag(ctx)
	default:
		return nil, artifact.WireDigest{}, err
	}
	_ = resp.Body.Close()
	d, err := pfimg.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if err != nil || manifestAnswer(resp) != nil {
		return r.manifestByTag(ctx)
	}
	raw, digest, err := r.manifestByDigest(ctx, artifact.WireDigest(d), nil)
	if err != nil {
		err = final{err} // it tried as often as it may
	}
	return raw, digest, err
}
