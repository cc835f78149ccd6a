package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/sched"
)

// Repository reads an image from an OCI registry.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pull
type Repository struct {
	ref   ref.Ref
	c     *client
	t     *transport
	log   *slog.Logger
	using OpenOptions
	down  error // the network is not asked: the answer is this
}

var _ artifact.Source = (*Repository)(nil)

// ManifestCache keeps manifests, configs and signatures by digest.
type ManifestCache interface {
	// Bytes returns the content whose SHA-256 is key, from the cache or by one run of fill, which
	// writes nothing but that content or fails. size is its length in bytes, -1 when unknown.
	// Without a fill it is fs.ErrNotExist that the cache lacks it.
	Bytes(ctx context.Context, key [32]byte, size int64,
		fill func(ctx context.Context, w artifact.Sink) error) ([]byte, error)
}

// OpenOptions say what a Repository works with. The zero value is usable.
type OpenOptions struct {
	Cache   ManifestCache        // nil: nothing is kept
	Known   bool                 // the tag was opened before: Cache probably has its manifest
	Preload func(*artifact.Root) // called when the manifest is there, before Root returns; or nil
	Traffic *artifact.Counters   // counts requests and bytes; or nil
}

// NoCache is a ManifestCache that keeps nothing.
type NoCache struct{}

// Bytes runs fill.
func (NoCache) Bytes(ctx context.Context, _ [32]byte, _ int64,
	fill func(context.Context, artifact.Sink) error,
) ([]byte, error) {
	if fill == nil {
		return nil, fs.ErrNotExist
	}
	var m artifact.Memory
	if err := fill(ctx, &m); err != nil {
		return nil, err
	}
	return m.Bytes(), nil
}

// Open returns the repository of a reference, which it does not ask yet. The caller must close it.
func Open(r ref.Ref, o Options, using OpenOptions) (*Repository, error) {
	o = o.WithDefaults()
	if using.Cache == nil {
		using.Cache = NoCache{}
	}
	if using.Traffic == nil {
		using.Traffic = new(artifact.Counters)
	}
	t := newTransport(o, using.Traffic)
	c, err := newClient(r, o, t, func(text string) { o.Log.Warn(text, "image", r.String()) })
	if err != nil {
		return nil, err
	}
	repo := &Repository{ref: r, c: c, t: t, log: o.Log, using: using}
	if o.Offline {
		repo.down = ErrOffline
	}
	return repo, nil
}

// Cached returns the same repository as far as the cache has it: the image is r, and why is the
// error where the network would have to be asked.
func (r *Repository) Cached(image ref.Ref, why error) *Repository {
	cached := *r
	cached.ref, cached.down, cached.using.Preload = image, why, nil
	return &cached
}

// Limiter returns what admits requests to the network.
func (r *Repository) Limiter() *sched.Limiter { return r.t.limiter }

// Close gives idle connections back.
func (r *Repository) Close() { r.t.CloseIdleConnections() }

// Root returns what the image starts from.
func (r *Repository) Root(ctx context.Context) (*artifact.Root, error) {
	raw, digest, err := r.manifest(ctx)
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseManifest(bytes.NewReader(raw), "")
	if err != nil {
		return nil, fmt.Errorf("OCI manifest %s: %w", digest, err)
	}
	m.Size = int64(len(raw))
	if r.using.Preload != nil {
		r.using.Preload(&artifact.Root{OCI: m, Find: m.Named.Find, Places: len(r.c.route)})
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

// manifest returns the OCI manifest and its digest. By digest the cache may have it. By tag the
// registry is asked: with HEAD when the reference was opened before, so that an image that has not
// changed costs no body.
func (r *Repository) manifest(ctx context.Context) (raw []byte, d artifact.WireDigest, err error) {
	if r.ref.Pinned() {
		return r.manifestByDigest(ctx, artifact.WireDigest(r.ref.Digest()), nil)
	}
	if r.down != nil {
		return nil, artifact.WireDigest{}, r.down
	}
	headers := r.using.Known
	retry := retrier{policy: r.c.policy}
	err = retry.do(ctx, func() error {
		ask := r.c.getManifest
		if headers {
			ask, headers = r.c.headManifest, false
		}
		h, err := ask(ctx, r.ref.Tag())
		if err == nil {
			raw, d, err = r.manifestOf(ctx, h)
		}
		return err
	})
	return raw, d, err
}

// manifestOf returns the manifest that an answer is about.
func (r *Repository) manifestOf(
	ctx context.Context, h manifestHead,
) ([]byte, artifact.WireDigest, error) {
	if h.named() {
		var first *http.Response
		if h.body {
			first = h.resp
		}
		raw, digest, err := r.manifestByDigest(ctx, h.digest, first)
		if err != nil {
			err = final{err} // it tried as often as it may
		}
		return raw, digest, err
	}
	raw, err := h.read(ctx)
	return raw, artifact.DigestOf(raw), err
}

// final marks an error that is not worth another try.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// manifestByDigest gets a manifest through the cache. first, when not nil, is an answer to start
// with; it is closed.
func (r *Repository) manifestByDigest(
	ctx context.Context, digest artifact.WireDigest, first *http.Response,
) ([]byte, artifact.WireDigest, error) {
	defer func() {
		if first != nil {
			_ = first.Body.Close()
		}
	}()
	get := func(ctx context.Context, w artifact.Sink) error {
		if r.down != nil {
			return r.down
		}
		err := r.until(ctx, digest.String(), w, func(ctx context.Context, wrong int) error {
			d := r.download(ctx, "manifests/"+digest.String(), -1, wrong)
			d.header.Set("Accept", acceptedTypes)
			d.check = manifestAnswer
			if first != nil {
				d.body, d.from = first.Body, origin(first)
				d.at = askedOf(first.Request.Context()).of
				first = nil
			}
			defer func() { _ = d.Close() }()
			want := artifact.Descriptor{Wire: digest, Size: -1}
			return artifact.CopyHashed(w, d.stored(), want, artifact.MaxManifest)
		})
		if err != nil {
			return fmt.Errorf("OCI manifest %s: %w", digest, err)
		}
		return nil
	}
	raw, err := r.using.Cache.Bytes(ctx, digest, -1, get)
	if err != nil {
		return nil, digest, err
	}
	if len(raw) > artifact.MaxManifest {
		return nil, digest, artifact.TooLong()
	}
	return raw, digest, nil
}

// small returns the config or the signature, from the cache or the registry.
func (r *Repository) small(ctx context.Context, d artifact.Descriptor) ([]byte, error) {
	get := func(ctx context.Context, w artifact.Sink) error {
		return r.until(ctx, d.Wire.String(), w, func(ctx context.Context, wrong int) error {
			from, err := r.Read(ctx, artifact.Layer{Wire: d.Wire, Size: d.Size}, wrong)
			if err != nil {
				return err
			}
			defer func() { _ = from.Close() }()
			return artifact.CopyHashed(w, from, d, artifact.MaxSmall)
		})
	}
	return r.using.Cache.Bytes(ctx, d.Wire, d.Size, get)
}

// Head returns the digest of the manifest that the tag names now, "" where no tag names the image.
func (r *Repository) Head(ctx context.Context) (string, error) {
	if r.ref.Pinned() {
		return "", nil
	}
	h, err := r.head(ctx)
	if err != nil {
		return "", err
	}
	defer h.close()
	if h.named() {
		return h.digest.String(), nil
	}
	raw, err := h.read(ctx)
	if err != nil {
		return "", err
	}
	return artifact.DigestOf(raw).String(), nil
}

// Exists returns nil when the registry has the manifest that the reference names, and an error that
// is artifact.ErrNotFound when it says that it has none.
func (r *Repository) Exists(ctx context.Context) error {
	h, err := r.head(ctx)
	if err == nil {
		h.close()
	}
	return err
}

// head asks for the headers of the manifest that the reference names.
func (r *Repository) head(ctx context.Context) (h manifestHead, err error) {
	if r.down != nil {
		return h, r.down
	}
	name := r.ref.Tag()
	if r.ref.Pinned() {
		name = artifact.WireDigest(r.ref.Digest()).String()
	}
	retry := retrier{policy: r.c.policy}
	err = retry.do(ctx, func() error {
		h, err = r.c.headManifest(ctx, name)
		return err
	})
	return h, err
}

// until runs try until it gets no wrong bytes: once more past every cache on the way, and then once
// from each further endpoint.
func (r *Repository) until(
	ctx context.Context, what string, w artifact.Sink,
	try func(ctx context.Context, wrong int) error,
) error {
	for n := 0; ; n++ {
		err := try(ctx, n)
		var wrong *artifact.WrongBytes
		if !errors.As(err, &wrong) || n >= len(r.c.route) {
			return err
		}
		r.log.Warn("wrong bytes, asking once more past every cache",
			"image", r.ref.String(), "what", what, "from", wrong.From, "cause", err)
		if err := w.Reset(); err != nil {
			return err
		}
	}
}

// Read returns the stored bytes of a layer.
func (r *Repository) Read(
	ctx context.Context, l artifact.Layer, wrong int,
) (*artifact.Stored, error) {
	if r.down != nil {
		return nil, r.down
	}
	d := r.download(ctx, "blobs/"+l.Wire.String(), l.Size, wrong)
	d.ranges = true
	return d.stored(), nil
}
