// Package fetch opens images from registries, layouts on disk, folders and local stores, reads
// their blobs, and copies them from one place to another. It promises that an Image is opened only
// after its signature was verified, that a blob is handed over only as bytes that hash to the
// digest the signed manifest knows it by (what a failed call wrote before is void), that whatever a
// server sends is bounded in memory and time, and that no error or log line holds a credential or a
// signed URL. It does not know what a blob means, and keeps nothing on disk but what Pull is asked
// for.
//
// Memory under load: each blob of more than 1 MiB that is under way holds a zstd window of at most
// 8 MiB and 2 MiB of buffers. Options.Registry.MaxConns of them are under way at once, wherever
// they come from, which makes about 320 MiB; the others wait and hold nothing. One at a time may
// have a window of up to 128 MiB.
package fetch

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/sign"
)

// Options say how images are opened. The zero value is usable.
type Options struct {
	Policy      sign.Policy
	Log         *slog.Logger     // nil: nothing is logged
	Meta        Meta             // nil: nothing is kept
	MaxBlobSize int64            // decoded bytes of a blob that has no signed size; 0: 4 GiB
	TrustFolder string           // why an unsigned file:// folder is trusted; "": it is not
	Preload     Preload          // nil: no layer is fetched before the signature is verified
	Registry    registry.Options // how a registry is reached; Log is the one above
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Meta == nil {
		o.Meta = noMeta{}
	}
	if o.MaxBlobSize <= 0 {
		o.MaxBlobSize = 4 << 30
	}
	o.Registry.Log = o.Log
	o.Registry = o.Registry.WithDefaults()
	return o
}

// Traffic says what an image fetched: HTTP requests sent (tokens and redirects count) and bytes of
// their bodies; for local images files opened and bytes read.
type Traffic struct{ Requests, Bytes int64 }

// Image is an opened image: its verified manifest and where its blobs are. It is safe for use by
// several goroutines.
type Image struct {
	ref      ref.Ref
	options  Options
	manifest *pfimg.Manifest
	src      artifact.Source // nil while the image is not open
	decoders *artifact.Decoders
	early    *early           // src, in a registry; nil elsewhere
	reader   *artifact.Reader // of its blobs; nil while the image is not open
	traffic  *artifact.Counters
	stale    bool
	use      usage
}

// usage lets Close end what is under way and wait for it.
type usage struct {
	ctx  context.Context // ends at Close
	end  context.CancelCauseFunc
	idle func() // gives connections back

	mu       sync.Mutex // guards the fields below
	running  sync.WaitGroup
	closed   bool
	warnings []string
}

// begin registers a call. The context that it returns ends with the caller's, and at Close.
func (u *usage) begin(ctx context.Context) (context.Context, func(), error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, nil, artifact.ErrClosed
	}
	u.running.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(u.ctx, func() { cancel(artifact.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		u.running.Done()
	}, nil
}

func (u *usage) warn(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !slices.Contains(u.warnings, text) {
		u.warnings = append(u.warnings, text)
	}
}

// Ref returns the reference that the image was opened by.
func (im *Image) Ref() ref.Ref { return im.ref }

// maxName bounds a reference in a message, in bytes.
const maxName = 300

// name is the reference for messages.
func (im *Image) name() string { return safetext.Clip(im.ref.String(), maxName) }

// newReader returns a reader of the layers of r, which are at src, within the image's bounds.
func (im *Image) newReader(src artifact.Source, r *artifact.Root) *artifact.Reader {
	return artifact.NewReader(artifact.Config{
		Image: im.name(), Log: im.options.Log,
		MaxBlob: im.options.MaxBlobSize, Decoders: im.decoders,
	}, src, r)
}

// Manifest returns the signed manifest.
func (im *Image) Manifest() *pfimg.Manifest { return im.manifest }

// Digest returns "sha256:…" of the OCI manifest, "" for folders and stores, which have none.
func (im *Image) Digest() string { return im.reader.Root().Digest }

// Facts are what an OCI manifest says of an image; zero for folders and stores, which have none.
type Facts struct {
	Layers       int   // that it lists, the signature's included
	WireBytes    int64 // stored bytes of config, signature and all blobs that it lists
	ManifestSize int64 // its own bytes
}

// Facts returns what the OCI manifest says. Of a folder or store only Wire of each blob tells.
func (im *Image) Facts() Facts {
	m := im.reader.Root().OCI
	if m == nil {
		return Facts{}
	}
	return Facts{Layers: m.Layers, WireBytes: m.WireBytes, ManifestSize: m.Size}
}

// Warnings returns what the user should know about how the image was opened, one sentence each.
func (im *Image) Warnings() []string {
	im.use.mu.Lock()
	defer im.use.mu.Unlock()
	return slices.Clone(im.use.warnings)
}

// Stale says that the image was opened from the cache and not from its registry, which was not
// asked or did not answer.
func (im *Image) Stale() bool { return im.stale }

// Fetched returns the traffic so far.
func (im *Image) Fetched() Traffic {
	return Traffic{Requests: im.traffic.Requests.Load(), Bytes: im.traffic.Bytes.Load()}
}

// Wire returns a blob's stored size in bytes, and its decoded size when an annotation tells (-1:
// none does). The latter is not signed: a hint of what to expect. ok is false when the image does
// not have the blob. An image may hold layers that do not say which blob they are; then a blob
// without a layer of its own is ok with a size of -1: Blob will look.
func (im *Image) Wire(d pfimg.Digest) (wire, decoded int64, ok bool) {
	return im.reader.Wire(d)
}

// Blob writes a blob's decoded bytes to w. size is its signed size in bytes, -1 when none is
// signed. The bytes are right when Blob returns nil; whatever it wrote before an error is void. An
// error of w comes back as it is; pfimg.ErrIntegrity names image, blob, layer, what was expected
// and what came.
func (im *Image) Blob(ctx context.Context, d pfimg.Digest, size int64, w artifact.Sink) error {
	ctx, done, err := im.use.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	return im.reader.Blob(ctx, d, size, w)
}

// Resolve asks the image's source which OCI manifest the image's tag names now; "" for an image
// that no tag names. A registry is asked for headers, and only one that tells no digest in them for
// the manifest. Nothing is verified: the answer says whether the tag has moved on, not what is
// there.
func (im *Image) Resolve(ctx context.Context) (string, error) {
	ctx, done, err := im.use.begin(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	return im.src.Head(ctx)
}

// Close ends what is under way, waits for it, and gives all connections back. It returns no error.
func (im *Image) Close() error {
	im.use.mu.Lock()
	im.use.closed = true
	im.use.mu.Unlock()
	im.use.end(artifact.ErrClosed)
	im.use.running.Wait()
	im.use.idle()
	im.decoders.Close()
	return nil
}

// DropEarly ends and forgets what was fetched before the signature and that no Blob has asked for.
func (im *Image) DropEarly() {
	if im.early != nil {
		im.early.drop()
	}
}

// WaitIdle waits until no reader and no readahead has a request under way or waiting, and the last
// failure is some time past: then a fetch in the background disturbs neither. It does not wait
// where no network is in use.
func (im *Image) WaitIdle(ctx context.Context) error {
	if im.early == nil {
		return ctx.Err()
	}
	return im.early.limiter.WaitIdle(ctx)
}
