package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/dustin/go-humanize"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/sign"
)

// leastLayer is the shortest that one layer can be in an OCI manifest of ours, in bytes.
const leastLayer = len(`{"mediaType":"application/vnd.processfork.layer.v1+zstd","size":9,`+
	`"digest":"sha256:","annotations":{"org.processfork.path":"blobs/sha256/aa/.zst"}},`) + 2*64

// minWorkers is how many blobs are under way at once at least.
const minWorkers = 8

// PushOptions say how an image is pushed.
type PushOptions struct {
	Registry registry.Options
	Key      sign.Key // signs anew; empty: the image's own signature, else the public default key
	Meter    *Meter   // nil: nothing is counted
	// MaxManifest is the longest OCI manifest that is pushed, in bytes; 0: 4 MiB, what registries
	// take.
	MaxManifest int64
	// MountFrom are repositories of the same registry, with or without its host, that may have
	// blobs of the image already: those of its parents. The registry is asked to take blobs from
	// there before they are uploaded.
	MountFrom []string
}

// Push copies an image to a registry: every blob is proved first, then what the registry lacks is
// uploaded as it is stored, several at once, and the manifest last. After an error the tag is what
// it was, and a second push goes on. A local place as destination is ref.ErrInvalid, a manifest
// that registries refuse ErrTooLarge.
func Push(ctx context.Context, c Cargo, dst ref.Ref, o PushOptions) (Report, error) {
	if o.Meter == nil {
		o.Meter = new(Meter)
	}
	o.Registry = o.Registry.WithDefaults()
	if dst.Kind() != ref.Registry {
		return Report{}, fmt.Errorf("%s is no registry; a local place is filled by pull: %w",
			safetext.Clip(dst.String(), maxName), ref.ErrInvalid)
	}
	if o.MaxManifest <= 0 {
		o.MaxManifest = registry.MaxManifest
	}
	p := &pusher{cargo: c, dst: dst, o: o, meter: o.Meter}
	err := p.run(ctx)
	report := o.Meter.report()
	report.Warnings = p.warnings
	if p.manifest != nil {
		report.Digest = artifact.DigestOf(p.manifest).String()
	}
	if err != nil {
		return report, fmt.Errorf("%s: %w", safetext.Clip(dst.String(), maxName), err)
	}
	return report, nil
}

// pusher is one push.
type pusher struct {
	up       *registry.Uploader // nil until all is proved
	cargo    Cargo
	dst      ref.Ref
	o        PushOptions
	meter    *Meter
	manifest []byte // the OCI manifest
	parts    []registry.Blob
	warnings []string
}

func (p *pusher) run(ctx context.Context) error {
	mountFrom, err := registry.MountFrom(p.dst, p.cargo.Image.ref, p.o.MountFrom)
	if err != nil {
		return err
	}
	if err = p.pack(ctx, p.o.Key); err != nil {
		return err
	}
	if p.up, err = registry.NewUploader(p.dst, p.o.Registry, mountFrom, p.meter); err != nil {
		return err
	}
	defer p.up.Close()
	return p.send(ctx)
}

// pack proves every blob and makes the OCI manifest, so that size and number are known before the
// first upload.
func (p *pusher) pack(ctx context.Context, key sign.Key) error {
	blobs := p.cargo.Index.Stats().Blobs
	if least := int64(blobs) * int64(leastLayer); least > p.o.MaxManifest {
		return p.tooLarge(least, "at least ")
	}
	p.meter.begin(int64(blobs), p.cargo.wireBytes())
	items, err := p.cargo.each(ctx, max(minWorkers, 2*runtime.GOMAXPROCS(0)), p.verify)
	if err != nil {
		return err
	}
	sig, warning := p.cargo.signature(key)
	if warning != "" {
		p.warnings = append(p.warnings, warning)
	}
	if p.manifest, err = p.cargo.ociManifest(ctx, sig, items); err != nil {
		return err
	}
	if size := int64(len(p.manifest)); size > p.o.MaxManifest {
		return p.tooLarge(size, "")
	}
	if got := pfimg.Digest(artifact.DigestOf(p.manifest)); p.dst.Pinned() && p.dst.Digest() != got {
		return fmt.Errorf("the image's manifest there will be %s, "+
			"another one than the reference names: %w", got, ref.ErrInvalid)
	}
	p.plan(sig, items)
	return nil
}

// verify proves one blob and counts it.
func (p *pusher) verify(
	ctx context.Context, d pfimg.Digest, size int64,
) (artifact.StoredBlob, error) {
	it, err := p.cargo.verifyBlob(ctx, d, size, artifact.NewHashingWriter(nil, p.meter.Stored))
	if err == nil {
		p.meter.blobs.Add(1)
	}
	return it, err
}

// plan lists the uploads, each digest once.
func (p *pusher) plan(sig []byte, items []artifact.StoredBlob) {
	seen := map[artifact.WireDigest]bool{}
	add := func(u registry.Blob) {
		if !seen[u.Digest] {
			seen[u.Digest] = true
			p.parts = append(p.parts, u)
		}
	}
	small := func(what string, b []byte) {
		open := func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		add(registry.Blob{
			What: what, Digest: artifact.DigestOf(b), Size: int64(len(b)), Open: open,
		})
	}
	small("config", p.cargo.Image.manifest.Raw)
	small("signature", sig)
	for _, it := range items {
		open := func(ctx context.Context) (io.ReadCloser, error) {
			return p.cargo.Image.src.Read(ctx, it.Source, 0)
		}
		add(registry.Blob{
			What: "blob " + it.Logical.String(), Digest: it.Wire, Size: it.Size, Open: open,
		})
	}
}

// send uploads what is missing, then the manifest.
func (p *pusher) send(ctx context.Context) error {
	var all int64
	for _, u := range p.parts {
		all += u.Size
	}
	p.meter.begin(int64(len(p.parts)), all)
	p.meter.uploading.Store(true)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(p.o.Registry.MaxConns, minWorkers))
	for _, u := range p.parts {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return p.up.Upload(gctx, u) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.explain(p.up.PutManifest(ctx, p.dst.Tag(), p.manifest))
}

// tooLarge refuses an image that no registry takes.
func (p *pusher) tooLarge(size int64, about string) error {
	return fmt.Errorf("the image has %d blobs, which makes an OCI manifest of %s%s; registries "+
		"take %s (--max-manifest-size allows more, for one that does); keep it as oci-layout:DIR, "+
		"file:///DIR or in a store (pfmount pull %s DEST): %w",
		p.cargo.Index.Stats().Blobs, about, humanize.IBytes(uint64(size)),
		humanize.IBytes(uint64(p.o.MaxManifest)), p.cargo.Image.name(), registry.ErrTooLarge)
}

// explain says what to do about a manifest that the registry does not take.
func (p *pusher) explain(err error) error {
	if !errors.Is(err, registry.ErrTooLarge) {
		return err
	}
	return fmt.Errorf("an image of %d layers: %w; keep it as oci-layout:DIR, file:///DIR "+
		"or in a store (pfmount pull %s DEST), or push to a registry that takes more",
		1+p.cargo.Index.Stats().Blobs, err, p.cargo.Image.name())
}
