package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// putManifest makes the image visible under its tag, and looks whether it is.
func (p *pusher) putManifest(ctx context.Context) error {
	name := p.dst.Tag()
	if name == "" {
		name = pfimg.Digest(artifact.DigestOf(p.manifest)).String()
	}
	retry := retrier{policy: p.c.policy}
	for {
		resp, err := p.do(ctx, call{
			method: http.MethodPut, path: "manifests/" + name, size: int64(len(p.manifest)),
			body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.manifest)), nil },
			header: http.Header{"Content-Type": {artifact.MediaTypeManifest}}, of: artifact.DigestOf(p.manifest),
		})
		if err == nil {
			finish(resp)
			if err = p.confirm(ctx); err != nil {
				return fmt.Errorf("OCI manifest %s: %w", artifact.DigestOf(p.manifest), err)
			}
			return nil
		}
		if err = retry.again(ctx, err); err != nil {
			return fmt.Errorf("OCI manifest: %w", p.explainManifest(err))
		}
	}
}

// tooLarge refuses an image that no registry takes.
func (p *pusher) tooLarge(size int64, about string) error {
	return fmt.Errorf("the image has %d blobs, which makes an OCI manifest of %s%s; registries take %s (--max-manifest-size allows more, for one that does); keep it as oci-layout:DIR, file:///DIR or in a store (pfmount pull %s DEST): %w",
		p.cargo.Index.Stats().Blobs, about, humanize.IBytes(uint64(size)), humanize.IBytes(uint64(p.o.MaxManifest)), p.cargo.Image.name(), ErrTooLarge)
}

// explainManifest says what a registry's refusal of the manifest means, and what to do.
func (p *pusher) explainManifest(err error) error {
	var status *statusError
	if !errors.As(err, &status) {
		return err
	}
	said := func(words ...string) bool {
		for _, w := range words {
			if !strings.Contains(strings.ToLower(status.words), w) {
				return false
			}
		}
		return true
	}
	invalid := status.code == http.StatusBadRequest && said("manifest_invalid")
	switch {
	case status.code == http.StatusRequestEntityTooLarge,
		invalid && (said("too large") || len(p.manifest) > maxPush), // distribution gives the reason elsewhere
		status.code == http.StatusMethodNotAllowed && said("unsupported", "number of layers"):
		return fmt.Errorf("the registry does not take an image of %d layers with an OCI manifest of %s: %w; keep it as oci-layout:DIR, file:///DIR or in a store (pfmount pull %s DEST), or push to a registry that takes more: %w",
			1+p.cargo.Index.Stats().Blobs, humanize.IBytes(uint64(len(p.manifest))), err, p.cargo.Image.name(), ErrTooLarge)
	case invalid, status.code == http.StatusUnsupportedMediaType:
		return fmt.Errorf("%w; the registry may have to allow the config media type %s first (Quay: FEATURE_GENERAL_OCI_SUPPORT: true, and in ALLOWED_OCI_ARTIFACT_TYPES that type with %s and %s)",
			err, artifact.MediaTypeConfig, artifact.MediaTypeLayer, artifact.MediaTypeSignature)
	}
	return p.explainName(err, status)
}

// explainBlob says what a registry's refusal of a blob means, and what to do.
func (p *pusher) explainBlob(err error) error {
	var status *statusError
	switch {
	case !errors.As(err, &status):
		return err
	case status.code == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w; it, or a proxy before it, limits what one request may upload: raise that (nginx: client_max_body_size)", err)
	}
	return p.explainName(err, status)
}

func (p *pusher) explainName(err error, status *statusError) error {
	if status.code == http.StatusNotFound && strings.Contains(status.words, "NAME_UNKNOWN") {
		return fmt.Errorf("%w; create the repository %s first: this registry does not do so at a push (Amazon ECR: aws ecr create-repository --repository-name %s)", err, p.dst.Repo(), p.dst.Repo())
	}
	return err
}
