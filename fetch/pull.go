package fetch

import (
	"context"
	"fmt"
	"os"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/sign"
)

// PullOptions say how an image is pulled.
type PullOptions struct {
	// Key signs the image anew in a folder, and in a layout when the image has no signature of its
	// own. Empty: the image's signature stays, else one by the public default key is made. Stores
	// have none.
	Key     sign.Key
	Workers int    // blobs under way at once, 8 at least; 0: 32
	Meter   *Meter // nil: nothing is counted
}

// Pull copies an image to a local place: what is there and proves right stays, the rest is fetched,
// several blobs at once, each checked against its wire and logical digests before it gets its name,
// and what makes the place an image comes last, when all the rest is on the disk: what survives a
// power cut is a whole image or none. A place that holds another image is ErrTaken. After an error
// a second pull goes on.
func Pull(ctx context.Context, c Cargo, dst ref.Ref, o PullOptions) (Report, error) {
	if o.Meter == nil {
		o.Meter = new(Meter)
	}
	if o.Workers <= 0 {
		o.Workers = 32
	}
	p := &puller{cargo: c, meter: o.Meter, workers: max(o.Workers, minWorkers), key: o.Key}
	digest, err := p.run(ctx, dst)
	report := o.Meter.report()
	report.Digest, report.Warnings = digest, p.warnings
	if err != nil {
		return report, fmt.Errorf("%s: %w", safetext.Clip(dst.String(), maxName), err)
	}
	return report, nil
}

// puller is one pull.
type puller struct {
	cargo    Cargo
	to       *local.Writer
	meter    *Meter
	workers  int
	key      sign.Key
	warnings []string
}

func (p *puller) run(ctx context.Context, dst ref.Ref) (digest string, err error) {
	im := p.cargo.Image
	p.to, err = local.NewWriter(ctx, dst, local.Identity{
		CID: im.manifest.ID, Manifest: im.manifest.Raw, OCI: im.reader.Root().Digest,
	})
	if err != nil {
		return "", err
	}
	defer p.to.Close()
	p.meter.begin(int64(p.cargo.Index.Stats().Blobs), p.cargo.wireBytes())
	items, err := p.cargo.each(ctx, p.workers, p.blob)
	if err != nil {
		return "", err
	}
	parts, err := p.parts(ctx, items)
	if err != nil {
		return "", err
	}
	if parts.OCI != nil {
		digest = artifact.DigestOf(parts.OCI).String()
	}
	return digest, p.to.Commit(ctx, parts)
}

// parts returns what the destination shows beside the blobs.
func (p *puller) parts(
	ctx context.Context, items []artifact.StoredBlob,
) (parts local.Parts, err error) {
	m, needs := p.cargo.Image.manifest, p.to.Needs()
	parts.Manifest = m.Raw
	if needs.Signature {
		key := p.key
		if needs.OCI && m.Signature != nil {
			key = nil
		}
		var warning string
		if parts.Signature, warning = p.cargo.signature(key); warning != "" {
			p.warnings = append(p.warnings, warning)
		}
	}
	if needs.OCI {
		parts.OCI, err = p.cargo.ociManifest(ctx, parts.Signature, items)
	}
	return parts, err
}

// blob brings one blob to its place.
func (p *puller) blob(
	ctx context.Context, d pfimg.Digest, size int64,
) (artifact.StoredBlob, error) {
	layers, err := p.cargo.Image.reader.Layers(ctx, d)
	if err != nil {
		return artifact.StoredBlob{}, err
	}
	if it, ok := p.have(ctx, d, size, layers[0]); ok {
		p.meter.Skipped(it.Size)
		return it, nil
	}
	f, err := p.to.Create()
	if err != nil {
		return artifact.StoredBlob{}, err
	}
	keep := artifact.NewHashingWriter(f, p.meter.Stored)
	it, err := p.cargo.verifyBlob(ctx, d, size, keep)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = p.to.Put(f.Name(), d, it.Wire)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		_ = keep.Forget()
		return artifact.StoredBlob{}, err
	}
	p.meter.Copied(it.Size)
	return it, nil
}

// have says that the destination has a blob, proved as if it had just come. What does not prove
// right is fetched again.
func (p *puller) have(
	ctx context.Context, d pfimg.Digest, size int64, l artifact.Layer,
) (artifact.StoredBlob, bool) {
	l.Logical = d
	there, from, path, ok := p.to.Have(l)
	if !ok {
		return artifact.StoredBlob{}, false
	}
	im := p.cargo.Image
	find := func(pfimg.Digest) []artifact.Layer { return []artifact.Layer{there} }
	view := im.newReader(from, &artifact.Root{Find: find})
	it, err := view.Verify(ctx, d, size, artifact.NewHashingWriter(nil, nil))
	if err != nil {
		im.options.Log.Debug("what the destination has is not right and is fetched again",
			"path", path, "cause", err)
		return artifact.StoredBlob{}, false
	}
	return it, true
}
