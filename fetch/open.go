package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/sign"
)

// Open opens an image: the manifest, then config and signature at once, then the signature is
// verified, and only then the pf manifest parsed. A registry that does not answer, or may not be
// asked, is replaced by what the cache keeps of this reference, verified again under the policy of
// now.
func Open(ctx context.Context, r ref.Ref, o Options) (*Image, error) {
	o = o.withDefaults()
	im := &Image{
		ref: r, options: o, traffic: new(artifact.Counters),
		decoders: artifact.NewDecoders(max(o.Registry.MaxConns, 2)),
	}
	im.use.ctx, im.use.end = context.WithCancelCause(context.Background())
	im.use.idle = func() {}
	if err := im.open(ctx); err != nil {
		_ = im.Close()
		if r.Kind() == 0 {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", safetext.Clip(r.String(), maxName), err)
	}
	return im, nil
}

func (im *Image) open(ctx context.Context) error {
	if im.ref.Kind() == ref.Registry {
		return im.openRegistry(ctx)
	}
	if im.src = local.Open(im.ref, im.options.TrustFolder, im.traffic); im.src == nil {
		return errZero
	}
	return im.load(ctx, im.src)
}

// errZero refuses the zero Ref.
var errZero = fmt.Errorf("the zero reference: %w", ref.ErrInvalid)

// load reads, verifies and parses.
func (im *Image) load(ctx context.Context, src artifact.Source) error {
	r, err := src.Root(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	v, err := im.verify(r)
	if err != nil {
		return err
	}
	if im.manifest, err = pfimg.Parse(v); err != nil {
		return err
	}
	im.reader = im.newReader(im.src, r)
	switch v.Signer() {
	case sign.SignerDefault:
		im.use.warn("signed with the public default key: the image is whole, " +
			"but anybody can have written it")
	case sign.SignerNone:
		if r.Trusted == "" {
			im.use.warn("the signature was not checked: " + v.Why())
		}
	}
	return nil
}

func (im *Image) verify(r *artifact.Root) (sign.Verified, error) {
	switch {
	case r.Trusted != "":
		return sign.Unverified(r.Manifest, r.Signature, r.Trusted), nil
	case r.Signature == nil && !im.options.Policy.Insecure:
		return sign.Verified{}, fmt.Errorf("the image has no signature: %w", sign.ErrSignature)
	}
	return im.options.Policy.Verify(r.Manifest, r.Signature)
}

func (im *Image) openRegistry(ctx context.Context) error {
	o := im.options
	last, lastErr := lastVerified(o.Meta, im.ref)
	if lastErr != nil && !errors.Is(lastErr, fs.ErrNotExist) {
		o.Log.Debug("no record of the last verified manifest",
			"image", im.ref.String(), "cause", lastErr)
	}
	held := &held{Meta: o.Meta}
	using := registry.OpenOptions{Cache: held, Known: lastErr == nil, Traffic: im.traffic}
	im.early = new(early)
	if o.Preload != nil {
		using.Preload = func(r *artifact.Root) { im.early.preload(&im.use, o.Preload, r) }
	}
	repo, err := registry.Open(im.ref, o.Registry, using)
	if err != nil {
		return err
	}
	im.use.idle, im.src = repo.Close, im.early
	im.early.Source, im.early.limiter = repo, repo.Limiter()
	if o.Registry.Offline {
		err = registry.ErrOffline
	} else {
		err = im.load(ctx, repo)
	}
	if err != nil && (o.Registry.Offline || registry.Unanswered(err)) && ctx.Err() == nil {
		im.DropEarly()
		return im.reopen(ctx, repo, last, err)
	}
	if err != nil {
		return err
	}
	if err := held.keep(ctx); err != nil {
		o.Log.Warn("the manifest could not be cached", "image", im.ref.String(), "cause", err)
	}
	im.remember()
	return nil
}

// reopen opens the image from the cache: by the reference's own digest, or by the one last
// verified. cause is why, and the error when the cache does not have all.
func (im *Image) reopen(
	ctx context.Context, repo *registry.Repository, last pfimg.Digest, cause error,
) error {
	r := im.ref
	if !r.Pinned() {
		if last == (pfimg.Digest{}) {
			return cause
		}
		r = r.At(last)
	}
	if err := im.load(ctx, repo.Cached(r, cause)); err != nil {
		return err
	}
	im.stale = true
	why := "the registry did not answer (" + cause.Error() + ")"
	if errors.Is(cause, registry.ErrOffline) {
		why = "offline"
	}
	im.use.warn(why + ": opened from the cache as last verified, " + im.reader.Root().Digest)
	return nil
}

// remember keeps which manifest was verified under this reference. A cache that fails costs only
// that.
func (im *Image) remember() {
	root := im.reader.Root()
	rec := record{
		Reference: im.ref.String(), Manifest: root.Digest, Config: root.OCI.Config.Wire.String(),
	}
	if s := root.OCI.Signatures; len(s) > 0 {
		rec.Signature = s[0].Wire.String()
	}
	if err := rec.save(im.options.Meta); err != nil {
		im.options.Log.Warn("the last verified manifest could not be kept",
			"image", im.ref.String(), "cause", err)
	}
}
