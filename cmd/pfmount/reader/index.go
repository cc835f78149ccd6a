package reader

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// EagerLimit is the stored size in bytes up to which a top-level blob is fetched when an image is
// opened, so that its size is known.
const EagerLimit = 1 << 20

// OpenImage opens an image and logs what the user should know about it, of its signature above all.
func OpenImage(ctx context.Context, r ref.Ref, o fetch.Options) (*fetch.Image, error) {
	image, err := fetch.Open(ctx, r, o)
	if err != nil {
		return nil, err
	}
	warn(o.Log, r, image.Warnings())
	return image, nil
}

// BuildIndex builds the index of an image without a cache: its blobs pass through unnamed temporary
// files.
func BuildIndex(ctx context.Context, image *fetch.Image, log *slog.Logger) (*pfimg.Index, error) {
	return build(ctx, image, log, func(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) {
		return Spool(ctx, image, d)
	})
}

func build(
	ctx context.Context, image *fetch.Image, log *slog.Logger, open pfimg.Opener,
) (*pfimg.Index, error) {
	ix, err := pfimg.Build(ctx, image.Manifest(), open)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image.Ref(), err)
	}
	warn(log, image.Ref(), ix.Warnings())
	return ix, nil
}

// warn logs warnings, unless log is nil.
func warn(log *slog.Logger, image ref.Ref, warnings []string) {
	if log == nil {
		return
	}
	for _, w := range warnings {
		log.Warn(w, "image", image.String())
	}
}

// buildIndex fetches the small top-level blobs in one round, together with the tree and the page
// table, and builds the index from these two.
func (r *Reader) buildIndex(ctx context.Context) (err error) {
	defer r.image.DropEarly()
	sizes := r.fetchTopLevel(ctx)
	if r.index, err = build(ctx, r.image, r.log, r.stream); err != nil {
		return err
	}
	for d, n := range sizes {
		r.index.SetSize(d, n)
	}
	return nil
}

// fetchTopLevel fetches the top-level blobs that are small or needed, at once, and returns the
// sizes that are known. An error here is not fatal: the index meets that of a blob it needs, a
// reader that of any other.
func (r *Reader) fetchTopLevel(ctx context.Context) map[pfimg.Digest]int64 {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards sizes
	sizes := make(map[pfimg.Digest]int64)
	set := func(d pfimg.Digest, n int64) { mu.Lock(); sizes[d] = n; mu.Unlock() }
	for _, top := range r.image.Manifest().TopLevel() {
		wire, hint, ok := r.image.Wire(top.Digest)
		needed := top.Path == "world/fs" || top.Path == "cache/manifest.json"
		if ok && (wire <= EagerLimit || needed) {
			wg.Go(func() {
				f, err := r.Open(ctx, top.Digest, -1)
				if err != nil {
					r.log.Debug("top-level blob not read yet", "path", top.Path, "error", err)
					return
				}
				set(top.Digest, f.Size())
				f.Close()
			})
		} else if n, cached := r.store.Stat(top.Digest); cached {
			set(top.Digest, n)
		} else if hint >= 0 {
			set(top.Digest, hint)
		}
	}
	wg.Wait()
	return sizes
}

// stream opens a blob from its start.
func (r *Reader) stream(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) {
	f, err := r.Open(ctx, d, -1)
	if err != nil {
		return nil, err
	}
	return sectionCloser{io.NewSectionReader(f, 0, f.Size()), f}, nil
}

type sectionCloser struct {
	io.Reader
	io.Closer
}

// Spool writes a blob to an unnamed temporary file and opens it from its start.
func Spool(ctx context.Context, image *fetch.Image, d pfimg.Digest) (io.ReadCloser, error) {
	f, err := os.CreateTemp("", "pfmount-verify-*")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(f.Name()); err == nil {
		if err = image.Blob(ctx, d, -1, fileSink{f}); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fileSink is a file as the sink of a blob.
type fileSink struct{ *os.File }

func (s fileSink) Reset() error {
	if err := s.Truncate(0); err != nil {
		return err
	}
	_, err := s.Seek(0, io.SeekStart)
	return err
}
