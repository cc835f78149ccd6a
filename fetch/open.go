package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/sign"
)

// Open opens an image: the manifest, then config and signature at once, then the signature is verified, and only then
// the pf manifest parsed. A registry that does not answer, or may not be asked, is replaced by what the cache keeps of
// this reference, verified again under the policy of now.
func Open(ctx context.Context, r Ref, o Options) (*Image, error) {
	o = o.withDefaults()
	im := &Image{ref: r, options: o, traffic: new(counters), decoders: newDecoders(max(o.MaxConns, 2))}
	im.use.ctx, im.use.end = context.WithCancelCause(context.Background())
	im.use.idle = func() {}
	if err := im.open(ctx); err != nil {
		_ = im.Close()
		if r.kind == 0 {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", clip(r.String(), maxWords), err)
	}
	return im, nil
}

func (im *Image) open(ctx context.Context) error {
	switch im.ref.kind {
	case Registry:
		return im.openRegistry(ctx)
	case Layout:
		im.src = &layout{ref: im.ref, traffic: im.traffic}
	case Folder:
		im.src = &folder{ref: im.ref, traffic: im.traffic, trusted: im.options.TrustFolder}
	case StoreImage:
		im.src = &store{ref: im.ref, traffic: im.traffic}
	default:
		return fmt.Errorf("the zero reference: %w", ErrRef)
	}
	return im.load(ctx, im.src)
}

// load reads, verifies and parses.
func (im *Image) load(ctx context.Context, src source) error {
	r, err := src.root(ctx)
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
	im.root = r
	im.unnamed = newUnnamed(im, r.oci)
	switch v.Signer() {
	case sign.SignerDefault:
		im.use.warn("signed with the public default key: the image is whole, but anybody can have written it")
	case sign.SignerNone:
		if r.trusted == "" {
			im.use.warn("the signature was not checked: " + v.Why())
		}
	}
	return nil
}

func (im *Image) verify(r *root) (sign.Verified, error) {
	switch {
	case r.trusted != "":
		return sign.Unverified(r.manifest, r.signature, r.trusted), nil
	case r.signature == nil && !im.options.Policy.Insecure:
		return sign.Verified{}, fmt.Errorf("the image has no signature: %w", sign.ErrSignature)
	}
	return im.options.Policy.Verify(r.manifest, r.signature)
}

func (im *Image) openRegistry(ctx context.Context) error {
	o := im.options
	t := newTransport(o, *o.retry, im.traffic)
	c, err := newClient(im.ref, o, *o.retry, t, func(text string) { o.Log.Warn(text, "image", im.ref.String()) })
	if err != nil {
		return err
	}
	im.use.idle = t.CloseIdleConnections
	meta := &held{Meta: o.Meta}
	reg := &registry{ref: im.ref, c: c, meta: meta, log: o.Log, limiter: t.limiter}
	im.src = reg
	if o.Offline {
		reg.down = ErrOffline
		return im.reopen(ctx, reg, ErrOffline)
	}
	if o.Likely != nil {
		reg.likely = im.likely
	}
	err = im.load(ctx, reg)
	if err != nil && silent(err) && ctx.Err() == nil {
		im.DropEarly()
		return im.reopen(ctx, reg, err)
	}
	if err != nil {
		return err
	}
	if err := meta.keep(ctx); err != nil {
		o.Log.Warn("the manifest could not be cached", "image", im.ref.String(), "cause", err)
	}
	im.remember()
	return nil
}

// reopen opens the image from the cache: by the reference's own digest, or by the one last verified. cause is why, and
// the error when the cache does not have all.
func (im *Image) reopen(ctx context.Context, reg *registry, cause error) error {
	cached := *reg
	cached.down, cached.likely = cause, nil
	if !cached.ref.pinned {
		digest, err := lastVerified(reg.meta, im.ref)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				im.options.Log.Debug("no record of the last verified manifest", "image", im.ref.String(), "cause", err)
			}
			return cause
		}
		cached.ref.digest, cached.ref.pinned = digest, true
	}
	if err := im.load(ctx, &cached); err != nil {
		return err
	}
	im.stale = true
	why := "the registry did not answer (" + cause.Error() + ")"
	if errors.Is(cause, ErrOffline) {
		why = "offline"
	}
	im.use.warn(why + ": opened from the cache as last verified, " + im.root.digest)
	return nil
}

// remember keeps which manifest was verified under this reference. A cache that fails costs only that.
func (im *Image) remember() {
	rec := record{Reference: im.ref.String(), Manifest: im.root.digest, Config: im.root.oci.config.wire.String()}
	if s := im.root.oci.signatures; len(s) > 0 {
		rec.Signature = s[0].wire.String()
	}
	if err := rec.save(im.options.Meta); err != nil {
		im.options.Log.Warn("the last verified manifest could not be kept", "image", im.ref.String(), "cause", err)
	}
}
