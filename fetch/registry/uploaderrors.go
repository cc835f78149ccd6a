package registry

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
)

// MaxManifest is the longest OCI manifest that registries take, in bytes: distribution's limit,
// about 15,000 layers. https://github.com/distribution/distribution/issues/4636
const MaxManifest = 4 << 20

// PutManifest makes an image visible under a tag ("": under its digest alone), and looks whether it
// is.
func (up *Uploader) PutManifest(ctx context.Context, tag string, manifest []byte) error {
	digest := artifact.DigestOf(manifest)
	name := tag
	if name == "" {
		name = digest.String()
	}
	retry := retrier{policy: up.c.policy}
	err := retry.do(ctx, func() error {
		resp, err := up.do(ctx, call{
			method: http.MethodPut, path: "manifests/" + name, size: int64(len(manifest)),
			body: func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(manifest)), nil
			},
			header: http.Header{"Content-Type": {artifact.MediaTypeManifest}}, of: digest,
		})
		if err == nil {
			finish(resp)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("OCI manifest: %w", up.explainManifest(err, len(manifest)))
	}
	if err = up.confirm(ctx, manifest); err != nil {
		return fmt.Errorf("OCI manifest %s: %w", digest, err)
	}
	return nil
}

// explainManifest says what a registry's refusal of the manifest means, and what to do.
func (up *Uploader) explainManifest(err error, size int) error {
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
		// distribution gives the reason elsewhere.
		invalid && (said("too large") || size > MaxManifest),
		status.code == http.StatusMethodNotAllowed && said("unsupported", "number of layers"):
		return fmt.Errorf("the registry does not take an OCI manifest of %s, "+
			"or so many layers: %w: %w",
			humanize.IBytes(uint64(size)), err, ErrTooLarge)
	case invalid, status.code == http.StatusUnsupportedMediaType:
		return fmt.Errorf("%w; the registry may have to allow the config media type %s first "+
			"(Quay: FEATURE_GENERAL_OCI_SUPPORT: true, and in ALLOWED_OCI_ARTIFACT_TYPES "+
			"that type with %s and %s)",
			err, artifact.MediaTypeConfig, artifact.MediaTypeLayer, artifact.MediaTypeSignature)
	}
	return up.explainName(err, status)
}

// explainBlob says what a registry's refusal of a blob means, and what to do.
func (up *Uploader) explainBlob(err error) error {
	var status *statusError
	switch {
	case !errors.As(err, &status):
		return err
	case status.code == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w; it, or a proxy before it, limits what one request may upload: "+
			"raise that (nginx: client_max_body_size)", err)
	}
	return up.explainName(err, status)
}

func (up *Uploader) explainName(err error, status *statusError) error {
	if status.code == http.StatusNotFound && strings.Contains(status.words, "NAME_UNKNOWN") {
		return fmt.Errorf("%w; create the repository %s first: this registry does not do so "+
			"at a push (Amazon ECR: aws ecr create-repository --repository-name %s)",
			err, up.repo, up.repo)
	}
	return err
}
