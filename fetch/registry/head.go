package registry

import (
	"context"
	"errors"
	"io"
	"net/http"

	"fmt"
	"strings"

	"github.com/pfmount/pfmount/fetch/artifact"
)

// manifestHead is what a registry says of a manifest. It is asked with HEAD, and with GET where
// that tells nothing: then the answer's body is there to be read and closed.
type manifestHead struct {
	digest artifact.WireDigest // zero: the answer does not tell it
	resp   *http.Response
	body   bool // the answer is one to GET
}

// headManifest asks for the headers of the manifest with a tag or digest. Registries and proxies
// refuse HEAD with various statuses, 404 among them, and some tell no digest: then GET decides,
// which says in words why when it is refused as well. What HEAD says for sure is an error at once:
// that a login is wanted, and what may pass.
func (c *client) headManifest(ctx context.Context, name string) (manifestHead, error) {
	h, err := c.askManifest(ctx, http.MethodHead, name)
	var status *statusError
	switch {
	case err == nil:
		_ = h.resp.Body.Close()
		if h.named() {
			return h, nil
		}
	case errors.Is(err, errPage):
	case !errors.As(err, &status), retriable(err), status.code == http.StatusUnauthorized:
		return h, err
	}
	return c.getManifest(ctx, name)
}

// getManifest asks for the manifest with a tag or digest. The caller reads and closes the answer's
// body.
func (c *client) getManifest(ctx context.Context, name string) (manifestHead, error) {
	return c.askManifest(ctx, http.MethodGet, name)
}

// askManifest sends one request for a manifest and reads no body.
func (c *client) askManifest(ctx context.Context, method, name string) (manifestHead, error) {
	resp, err := c.do(ctx, call{
		method: method, path: "manifests/" + name, header: http.Header{"Accept": {acceptedTypes}},
		check: manifestAnswer,
	})
	if err != nil {
		return manifestHead{}, err
	}
	h := manifestHead{resp: resp, body: method == http.MethodGet}
	h.digest, _ = namedDigest(resp.Header, "Docker-Content-Digest")
	return h, nil
}

// named says that the answer tells a digest.
func (h manifestHead) named() bool { return h.digest != artifact.WireDigest{} }

// close gives the connection back.
func (h manifestHead) close() {
	if h.body {
		finish(h.resp)
	}
}

// read returns the manifest of an answer that tells no digest, and closes it.
func (h manifestHead) read(ctx context.Context) ([]byte, error) {
	defer func() { _ = h.resp.Body.Close() }()
	var m artifact.Memory
	n, err := io.Copy(&m, io.LimitReader(h.resp.Body, artifact.MaxManifest+1))
	if err != nil {
		d := download{ctx: ctx, size: -1, off: n, from: target(h.resp.Request)[4:]}
		return nil, d.cut(err)
	}
	if n > artifact.MaxManifest {
		return nil, artifact.TooLong()
	}
	return m.Bytes(), nil
}

// acceptedTypes are the media types asked for: also those that are no image of ours, so that the
// error can say what they are.
var acceptedTypes = strings.Join([]string{
	artifact.MediaTypeManifest, artifact.MediaTypeIndex,
	artifact.MediaTypeDocker, artifact.MediaTypeDockerList,
}, ", ")

// errPage is a page for browsers in place of a manifest.
var errPage = fmt.Errorf("%w: a web page", errRule)

// manifestAnswer refuses answers that no registry gives.
func manifestAnswer(resp *http.Response) error {
	if kind := resp.Header.Get("Content-Type"); hasType(kind, "text/html") {
		return &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errPage,
			text: "the answer is a web page (text/html), so this is no registry, " +
				"or a login page stands before it",
		}
	}
	return nil
}

// hasType says that a Content-Type header names a media type, whatever its parameters.
func hasType(header, mediaType string) bool {
	kind, _, _ := strings.Cut(header, ";")
	return strings.EqualFold(strings.TrimSpace(kind), mediaType)
}
