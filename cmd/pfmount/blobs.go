package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
	"github.com/pfmount/pfmount/fusefs"
)

// blobs is the joint of the house: a blob is served from the disk cache, and
// what the cache lacks is filled from the image. Everything that reads decoded
// bytes goes through it: the mount, the index, cat and warm.
type blobs struct {
	store *cache.Store
	image *fetch.Image
	early *fetches // that nobody waited for at first
}

var _ fusefs.Blobs = blobs{}

// Open returns a verified blob, filling the cache first if it must. A size of
// -1 means that nothing signed says it.
func (b blobs) Open(ctx context.Context, d pfimg.Digest, size int64) (fusefs.File, error) {
	fill := func(ctx context.Context, w cache.Sink) error { return b.image.Blob(ctx, d, size, w) }
	if f, ok := b.store.Get(ctx, d, size, fill); ok {
		return f, nil
	}
	b.early.await(d)
	defer b.early.leave(d)
	for try := 1; ; try++ {
		f, err := b.store.Open(ctx, d, size, fill)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, cache.ErrUnwanted) || try == maxJoins:
			return nil, err // not f: a nil *cache.File is no nil fusefs.File
		}
	}
}

// maxJoins is how often a reader may join a fetch in the moment in which that is given up.
const maxJoins = 5

// fetch fills the cache with a blob for which early has begun a fetch, and ends that. A reader who comes for the blob
// meanwhile joins, and raises its class; if none did, it is given to use, if that is not nil.
func (b blobs) fetch(ctx context.Context, d pfimg.Digest, size int64, u *sched.Priority, use func(io.ReaderAt)) error {
	defer b.early.end(d)
	f, err := b.store.Open(ctx, d, size, func(ctx context.Context, w cache.Sink) error {
		err := b.image.Blob(sched.WithPriority(ctx, u), d, size, w)
		if err != nil && u.Class() != sched.Reader && !errors.Is(err, pfimg.ErrIntegrity) { // wrong bytes are so for readers, too
			err = fmt.Errorf("%w: %w", cache.ErrUnwanted, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	if use != nil && u.Class() != sched.Reader {
		use(f)
	}
	return f.Close()
}

// stream is Open as the index reads it.
func (b blobs) stream(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) {
	f, err := b.Open(ctx, d, -1)
	if err != nil {
		return nil, err
	}
	return sectionCloser{io.NewSectionReader(f, 0, f.Size()), f}, nil
}

type sectionCloser struct {
	io.Reader
	io.Closer
}

// meta lets fetch keep manifests, configs and signatures in the disk cache:
// they are blobs under their own digests, so they share its checks and quota.
type meta struct{ store *cache.Store }

var _ fetch.Meta = meta{}

func (m meta) Bytes(ctx context.Context, key [32]byte, size int64, fill func(context.Context, artifact.Sink) error) ([]byte, error) {
	if fill == nil {
		if !m.store.Has(key) {
			return nil, fs.ErrNotExist
		}
		fill = func(context.Context, artifact.Sink) error { // it was damaged, or is gone by now
			return fmt.Errorf("%w: %w", cache.ErrUnwanted, fs.ErrNotExist)
		}
	}
	f, err := m.store.Open(ctx, key, size, func(ctx context.Context, w cache.Sink) error { return fill(ctx, w) })
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, f.Size())
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

func (m meta) Get(name string) ([]byte, error)    { return m.store.Record(name) }
func (m meta) Put(name string, data []byte) error { return m.store.SetRecord(name, data) }

// spool opens blobs without the cache: into unnamed temporary files. Verify
// reads the tree through it, since it fills nothing.
type spool struct{ image *fetch.Image }

func (s spool) stream(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) {
	f, err := os.CreateTemp("", "pfmount-verify-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if err := s.image.Blob(ctx, d, -1, fileSink{f}); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fileSink is a file that a fill may start over.
type fileSink struct{ *os.File }

func (s fileSink) Reset() error {
	if err := s.Truncate(0); err != nil {
		return err
	}
	_, err := s.Seek(0, io.SeekStart)
	return err
}

// discard counts what it drops: the sink of verify.
type discard struct{ n int64 }

func (d *discard) Write(p []byte) (int, error) { d.n += int64(len(p)); return len(p), nil }
func (d *discard) Reset() error                { d.n = 0; return nil }

// readLimited reads a whole file of at most limit bytes.
func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return b, err
}
