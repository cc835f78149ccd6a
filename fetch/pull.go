package fetch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/sign"
)

// PullOptions say how an image is pulled.
type PullOptions struct {
	// Key signs the image anew in a folder, and in a layout when the image has no signature of its own. Empty: the
	// image's signature stays, else one by the public default key is made. Stores have none.
	Key     sign.Key
	Workers int    // blobs under way at once, 8 at least; 0: 32
	Meter   *Meter // nil: nobody watches
}

// ParseDest reads a local destination as a user types it: file:///DIR, oci-layout:DIR[:TAG], store: or store:CID.
// storeDir is the store's folder, "" for PF_STORE or the user's own. The error is ErrRef.
func ParseDest(s, storeDir string) (Ref, error) {
	typed := s
	if s == "store:" {
		s += strings.Repeat("0", 64)
	}
	r, err := ParseRef(s)
	if err != nil {
		return Ref{}, err
	}
	switch {
	case r.kind == Registry:
		return Ref{}, badRef(typed, "that is a registry; a destination is file:///DIR, oci-layout:DIR[:TAG] or store:")
	case r.kind == Layout && r.pinned:
		return Ref{}, badRef(typed, "a destination takes a tag, not a digest")
	case typed == "store:":
		r.digest, r.pinned = pfimg.Digest{}, false
	}
	return r.InStore(storeDir), nil
}

// InStore returns the reference of an image in the store at dir, in place of the one that PF_STORE names. References of
// other kinds, and an empty dir, change nothing.
func (r Ref) InStore(dir string) Ref {
	if r.kind == StoreImage && dir != "" {
		r.dir = filepath.Clean(dir)
	}
	return r
}

// Pull copies an image to a local place: what is there and proves right stays, the rest is fetched, several blobs at
// once, each checked against its wire and logical digests before it gets its name, and what makes the place an image
// comes last, when all the rest is on the disk: what survives a power cut is a whole image or none. A place that holds
// another image is ErrTaken. After an error a second pull goes on.
func Pull(ctx context.Context, c Cargo, dst Ref, o PullOptions) (Report, error) {
	if o.Meter == nil {
		o.Meter = new(Meter)
	}
	if o.Workers <= 0 {
		o.Workers = 32
	}
	p := &puller{cargo: c, meter: o.Meter, workers: max(o.Workers, minWorkers), key: o.Key}
	switch dst.kind {
	case Folder:
		p.depot, p.view = &folderDest{dir: dst.dir}, &folder{ref: dst, traffic: new(counters)}
	case StoreImage:
		p.depot, p.view = &storeDest{ref: dst}, &store{ref: dst, traffic: new(counters)}
	case Layout:
		p.depot, p.view = &layoutDest{ref: dst}, &layout{ref: dst, traffic: new(counters)}
	default:
		return Report{}, fmt.Errorf("%s is no local place: %w", clip(dst.String(), maxWords), ErrRef)
	}
	digest, err := p.run(ctx, dst.dir)
	report := o.Meter.report()
	report.Digest, report.Warnings = digest, p.warnings
	if err != nil {
		return report, fmt.Errorf("%s: %w", clip(dst.String(), maxWords), err)
	}
	return report, nil
}

// depot is a local place that an image is pulled into.
type destination interface {
	// prepare refuses a place that holds another image.
	prepare(ctx context.Context, c Cargo) error
	// path is where the stored bytes of a blob go; known is false while wire is zero and the place goes by it.
	path(logical pfimg.Digest, wire wireDigest) (path string, known bool)
	// commit makes the place show the image, by the one publish of p.temp. It returns the OCI manifest's digest, "" where there is none.
	commit(ctx context.Context, p *puller, items []storedBlob) (digest string, err error)
}

// puller is one pull.
type puller struct {
	cargo    Cargo
	depot    destination
	view     source // reads what is at the destination
	temp     *tempDir
	meter    *Meter
	workers  int
	key      sign.Key
	warnings []string
}

func (p *puller) run(ctx context.Context, dir string) (digest string, err error) {
	if err := p.depot.prepare(ctx, p.cargo); err != nil {
		return "", err
	}
	if p.temp, err = newTempDir(dir); err != nil {
		return "", err
	}
	defer p.temp.remove()
	p.meter.begin(int64(p.cargo.Index.Stats().Blobs), p.cargo.wireBytes())
	items, err := p.cargo.each(ctx, p.workers, p.blob)
	if err != nil {
		return "", err
	}
	return p.depot.commit(ctx, p, items)
}

// blob brings one blob to its place.
func (p *puller) blob(ctx context.Context, d pfimg.Digest, size int64) (storedBlob, error) {
	layers, err := p.cargo.Image.reader.layersOf(ctx, d)
	if err != nil {
		return storedBlob{}, err
	}
	if it, ok := p.have(ctx, d, size, layers[0]); ok {
		p.meter.skip(it.size)
		return it, nil
	}
	f, err := p.temp.create()
	if err != nil {
		return storedBlob{}, err
	}
	keep := newHashingWriter(f, p.meter)
	it, err := p.cargo.Image.verifyBlob(ctx, d, size, keep)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		path, _ := p.depot.path(d, it.wire)
		err = p.temp.place(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		_ = keep.forget()
		return storedBlob{}, err
	}
	p.meter.copy(it.size)
	return it, nil
}

// forget takes back what was counted of a blob that did not come.
func (k *hashingWriter) forget() error {
	k.file = nil
	return k.Reset()
}

// have says that the destination has a blob, proved as if it had just come. What does not prove right is fetched again.
func (p *puller) have(ctx context.Context, d pfimg.Digest, size int64, l layer) (storedBlob, bool) {
	path, known := p.depot.path(d, l.wire)
	if !known {
		return storedBlob{}, false
	}
	n, ok := statRegular(path)
	if !ok {
		return storedBlob{}, false
	}
	there := layer{logical: d, size: n, decoded: -1}
	if _, ok := p.view.(*layout); ok {
		there.wire = l.wire
	}
	im := p.cargo.Image
	view := im.newReader(p.view, &root{find: func(pfimg.Digest) []layer { return []layer{there} }})
	it, err := view.verify(ctx, d, size, newHashingWriter(nil, new(Meter)))
	if err != nil {
		im.options.Log.Debug("what the destination has is not right and is fetched again", "path", path, "cause", err)
		return storedBlob{}, false
	}
	return it, true
}
