package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/sched"
)

// accepted are the media types asked for: also those that are no image of ours, so that the error can say what they are.
var accepted = strings.Join([]string{artifact.MediaTypeManifest, artifact.MediaTypeIndex, artifact.MediaTypeDocker, artifact.MediaTypeDockerList}, ", ")

// registry reads an image from an OCI registry.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pull
type registry struct {
	ref     ref.Ref
	c       *client
	limiter *sched.Limiter
	meta    Meta
	log     *slog.Logger
	down    error                // the network is not asked: the answer is this
	likely  func(*artifact.Root) // told of the layers as soon as it is there; nil: nobody wants to know
}

var _ artifact.Source = (*registry)(nil)

func (r *registry) Root(ctx context.Context) (*artifact.Root, error) {
	raw, digest, err := r.manifest(ctx)
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseManifest(bytes.NewReader(raw), "")
	if err != nil {
		return nil, fmt.Errorf("OCI manifest %s: %w", digest, err)
	}
	m.Size = int64(len(raw))
	if r.likely != nil {
		r.likely(&artifact.Root{OCI: m, Find: m.Named.Find, Places: len(r.c.route)})
	}
	root, err := artifact.ReadRoot(ctx, m, digest.String(), r.small)
	if err == nil {
		root.Places = len(r.c.route)
		root.Raw = func(ctx context.Context) ([]byte, error) {
			raw, _, err := r.manifestByDigest(ctx, digest, nil)
			return raw, err
		}
	}
	return root, err
}

// manifest returns the OCI manifest and its digest. By digest the cache may have it. By tag the registry is asked: only
// for the digest (HEAD) when the reference was opened before, so that an image that has not changed costs no body.
func (r *registry) manifest(ctx context.Context) ([]byte, artifact.WireDigest, error) {
	if r.ref.Pinned() {
		return r.manifestByDigest(ctx, artifact.WireDigest(r.ref.Digest()), nil)
	}
	if r.down != nil {
		return nil, artifact.WireDigest{}, r.down
	}
	_, err := lastVerified(r.meta, r.ref)
	ask := r.manifestByTag
	if err == nil {
		ask = r.manifestByHead
	}
	retry := retrier{policy: r.c.policy}
	for {
		raw, digest, err := ask(ctx)
		if err == nil {
			return raw, digest, nil
		}
		ask = r.manifestByTag
		if err = retry.again(ctx, err); err != nil {
			return nil, artifact.WireDigest{}, err
		}
	}
}

func (r *registry) manifestByTag(ctx context.Context) ([]byte, artifact.WireDigest, error) {
	resp, err := r.c.do(ctx, call{
		method: http.MethodGet, path: "manifests/" + r.ref.Tag(), header: http.Header{"Accept": {accepted}}, check: manifestAnswer,
	})
	if err != nil {
		return nil, artifact.WireDigest{}, err
	}
	if d, err := pfimg.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		raw, digest, err := r.manifestByDigest(ctx, artifact.WireDigest(d), resp)
		if err != nil {
			err = final{err} // it tried as often as it may
		}
		return raw, digest, err
	}
	defer func() { _ = resp.Body.Close() }()
	var m artifact.Memory
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, &m), io.LimitReader(resp.Body, artifact.MaxManifest+1))
	if err != nil {
		return nil, artifact.WireDigest{}, (&download{ctx: ctx, size: -1, off: n, from: target(resp.Request)[4:]}).cut(err)
	}
	if n > artifact.MaxManifest {
		return nil, artifact.WireDigest{}, artifact.TooLong()
	}
	return m.Bytes(), artifact.WireDigest(h.Sum(nil)), nil
}

// final marks an error that is not worth another try.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// manifestByDigest gets a manifest through the cache. first, when not nil, is an answer to start with; it is closed.
func (r *registry) manifestByDigest(ctx context.Context, digest artifact.WireDigest, first *http.Response) ([]byte, artifact.WireDigest, error) {
	defer func() {
		if first != nil {
			_ = first.Body.Close()
		}
	}()
	raw, err := r.meta.Bytes(ctx, digest, -1, func(ctx context.Context, w artifact.Sink) error {
		if r.down != nil {
			return r.down
		}
		err := r.until(ctx, digest.String(), w, func(ctx context.Context, wrong int) error {
			d := r.download(ctx, "manifests/"+digest.String(), -1, wrong)
			d.header.Set("Accept", accepted)
			d.check = manifestAnswer
			if first != nil {
				d.body, d.from, d.at = first.Body, origin(first), askedOf(first.Request.Context()).of
				first = nil
			}
			defer func() { _ = d.Close() }()
			return artifact.CopyHashed(w, d.stored(), artifact.Descriptor{Wire: digest, Size: -1}, artifact.MaxManifest)
		})
		if err != nil {
			return fmt.Errorf("OCI manifest %s: %w", digest, err)
		}
		return nil
	})
	if err != nil {
		return nil, digest, err
	}
	if len(raw) > artifact.MaxManifest {
		return nil, digest, artifact.TooLong()
	}
	return raw, digest, nil
}

// manifestAnswer refuses answers that no registry gives.
func manifestAnswer(resp *http.Response) error {
	if kind := resp.Header.Get("Content-Type"); hasType(kind, "text/html") {
		return &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule,
			text: "the answer is a web page (text/html), so this is no registry, or a login page stands before it",
		}
	}
	return nil
}

// small returns the config or the signature, from the cache or the registry.
func (r *registry) small(ctx context.Context, d artifact.Descriptor) ([]byte, error) {
	return r.meta.Bytes(ctx, d.Wire, d.Size, func(ctx context.Context, w artifact.Sink) error {
		return r.until(ctx, d.Wire.String(), w, func(ctx context.Context, wrong int) error {
			from, err := r.Read(ctx, artifact.Layer{Wire: d.Wire, Size: d.Size}, wrong)
			if err != nil {
				return err
			}
			defer func() { _ = from.Close() }()
			return artifact.CopyHashed(w, from, d, artifact.MaxSmall)
		})
	})
}

// until runs try until it gets no wrong bytes: once more past every cache on the way, and then once from each further
// endpoint.
func (r *registry) until(ctx context.Context, what string, w artifact.Sink, try func(ctx context.Context, wrong int) error) error {
	for n := 0; ; n++ {
		err := try(ctx, n)
		var wrong *artifact.WrongBytes
		if !errors.As(err, &wrong) || n >= len(r.c.route) {
			return err
		}
		r.log.Warn("wrong bytes, asking once more past every cache", "image", r.ref.String(), "what", what, "from", wrong.From, "cause", err)
		if err := w.Reset(); err != nil {
			return err
		}
	}
}

func (r *registry) Read(ctx context.Context, l artifact.Layer, wrong int) (*artifact.Stored, error) {
	if r.down != nil {
		return nil, r.down
	}
	d := r.download(ctx, "blobs/"+l.Wire.String(), l.Size, wrong)
	d.ranges = true
	return d.stored(), nil
}

// download begins one; wrong is how often it brought wrong bytes.
func (r *registry) download(ctx context.Context, path string, size int64, wrong int) *download {
	d := &download{ctx: ctx, c: r.c, path: path, size: size, header: http.Header{}, retry: retrier{policy: r.c.policy}}
	if wrong > 0 {
		d.past = wrong - 1
		d.header.Set("Cache-Control", "no-cache")
		d.header.Set("Pragma", "no-cache")
	}
	return d
}

// stored makes a download the stored bytes of something.
func (d *download) stored() *artifact.Stored {
	return &artifact.Stored{ReadCloser: d, Size: d.size, Net: true, From: func() string {
		if d.resumed > 0 {
			return fmt.Sprintf("%s (resumed at byte %d)", d.from, d.resumed)
		}
		return d.from
	}}
}

// hasType says that a Content-Type header names a media type, whatever its parameters.
func hasType(header, mediaType string) bool {
	kind, _, _ := strings.Cut(header, ";")
	return strings.EqualFold(strings.TrimSpace(kind), mediaType)
}
