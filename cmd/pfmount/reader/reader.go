// Package reader reads an image through the cache on disk: what the cache lacks is fetched from
// where the image is.
//
// It promises that a blob is verified before a byte of it is returned, that the readers of a blob
// share one fetch, also with a fetch that began before any of them, and that a fetch that is given
// up because no reader waits for it is no error of a reader.
//
// It does not know command lines, FUSE, or which blob is read next.
package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/sched"
)

// ErrOpenFiles says that the process may open too few files to read an image.
var ErrOpenFiles = errors.New("too few open files are allowed")

// minFiles is the least limit on open files: 32 for the process itself, 16 for blobs, as many for
// connections. With fewer, many readers at once would wait for each other and fail.
const minFiles = 64

// CheckOpenFiles returns ErrOpenFiles where the limit would make reads fail.
func CheckOpenFiles() error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if r.Cur < minFiles {
		return fmt.Errorf("%w: at most %d, %d are needed: raise the limit (ulimit -n %d)",
			ErrOpenFiles, r.Cur, minFiles, minFiles)
	}
	return nil
}

// Config says how an image is read.
type Config struct {
	Cache cache.Options
	Image fetch.Options // Open sets Meta and Preload
	Log   *slog.Logger  // also that of Cache and Image; nil: nothing is logged
	// Await is called when a reader begins to wait for a blob, and the function it returns when
	// that ends. Neither may block. nil: it is not called.
	Await func(d pfimg.Digest) (end func())
}

// Reader is an open image. It is safe for concurrent use.
type Reader struct {
	log   *slog.Logger
	store *cache.Store
	image *fetch.Image
	index *pfimg.Index
	await func(pfimg.Digest) func()
}

// Open opens the cache and the image, verifies its signature and builds its index. It logs what
// the user should know about them.
func Open(ctx context.Context, r ref.Ref, c Config) (*Reader, error) {
	if err := CheckOpenFiles(); err != nil {
		return nil, err
	}
	rd := &Reader{log: c.Log, await: c.Await}
	if rd.log == nil {
		rd.log = slog.New(slog.DiscardHandler)
	}
	if rd.await == nil {
		rd.await = func(pfimg.Digest) func() { return func() {} }
	}
	c.Cache.Log, c.Image.Log = rd.log, rd.log
	store, err := cache.New(c.Cache)
	if err != nil {
		return nil, err
	}
	rd.store = store
	c.Image.Meta = meta{Records{store}}
	c.Image.Preload = func(d pfimg.Digest) bool { return !store.Has(d) }
	if rd.image, err = OpenImage(ctx, r, c.Image); err != nil {
		store.Close()
		return nil, err
	}
	if err := rd.buildIndex(ctx); err != nil {
		rd.Close()
		return nil, err
	}
	return rd, nil
}

// Close ends what is under way and closes image and cache.
func (r *Reader) Close() error {
	err := r.store.Close()
	return errors.Join(err, r.image.Close())
}

// Image returns the image.
func (r *Reader) Image() *fetch.Image { return r.image }

// Index returns the index of the image.
func (r *Reader) Index() *pfimg.Index { return r.index }

// Records returns the records of the cache.
func (r *Reader) Records() Records { return Records{r.store} }

// Stats returns what the cache did so far.
func (r *Reader) Stats() cache.Stats { return r.store.Stats() }

// Fills returns how many blobs can be fetched at once.
func (r *Reader) Fills() int { return r.store.Fills() }

// Has reports whether the cache has a blob, unchecked and at the cost of one system call.
func (r *Reader) Has(d pfimg.Digest) bool { return r.store.Has(d) }

// Room returns how many bytes fit in the cache before anything is evicted.
func (r *Reader) Room() int64 { return r.store.Room() }

// Stat returns the size of a blob that is in the cache, and whether it is.
func (r *Reader) Stat(d pfimg.Digest) (size int64, ok bool) { return r.store.Stat(d) }

// maxJoins is how often a reader may join a fetch in the moment in which that is given up.
const maxJoins = 5

// Open returns a verified blob, which it fetches when the cache lacks it. A size of -1 means that
// no signed size is known. The caller must Close the file.
func (r *Reader) Open(ctx context.Context, d pfimg.Digest, size int64) (*cache.File, error) {
	return r.open(ctx, d, size, func(ctx context.Context, w cache.Sink) error {
		return r.image.Blob(ctx, d, size, w)
	})
}

// open opens a blob for a reader. It is the one place where readers wait.
func (r *Reader) open(
	ctx context.Context, d pfimg.Digest, size int64, fill cache.Fill,
) (*cache.File, error) {
	if f, ok := r.store.Get(ctx, d, size, fill); ok {
		return f, nil
	}
	for try := 1; ; try++ {
		end := r.await(d)
		f, err := r.store.Open(ctx, d, size, fill)
		end()
		if err == nil || !errors.Is(err, cache.ErrUnwanted) || try == maxJoins {
			return f, err
		}
	}
}

// Fetch fills the cache with a blob that no reader waits for yet, by requests of priority p. A
// reader of the blob joins the fetch, and must raise p. Unless p was raised, use is then called
// with the blob, if it is not nil; and an error is not kept for readers.
func (r *Reader) Fetch(
	ctx context.Context, d pfimg.Digest, p *sched.Priority, use func(io.ReaderAt),
) error {
	size, _ := r.index.Size(d)
	f, err := r.store.Open(ctx, d, size, func(ctx context.Context, w cache.Sink) error {
		err := r.image.Blob(sched.WithPriority(ctx, p), d, size, w)
		// Wrong bytes are wrong for readers, too.
		if err != nil && p.Class() != sched.Reader && !errors.Is(err, pfimg.ErrIntegrity) {
			err = fmt.Errorf("%w: %w", cache.ErrUnwanted, err)
		}
		return err
	})
	if err != nil {
		return err
	}
	if use != nil && p.Class() != sched.Reader {
		use(f)
	}
	return f.Close()
}

// BlobFault reports whether an error of Fetch concerns one blob only. If not, the next fetch is
// likely to fail, too.
func BlobFault(err error) bool {
	for _, fault := range []error{
		artifact.ErrMissing, pfimg.ErrIntegrity,
		cache.ErrSize, cache.ErrDamaged, cache.ErrElsewhere,
	} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// Copy writes a whole blob to w.
func (r *Reader) Copy(ctx context.Context, w io.Writer, d pfimg.Digest, size int64) error {
	f, err := r.Open(ctx, d, size)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, io.NewSectionReader(f, 0, f.Size()))
	return err
}

// Warm fetches a blob when the cache lacks it, and verifies it when not. It returns the size of the
// blob. progress is called with the bytes that were written, less than 0 where a fetch starts over.
func (r *Reader) Warm(
	ctx context.Context, d pfimg.Digest, size int64, progress func(n int64),
) (int64, error) {
	f, err := r.open(ctx, d, size, func(ctx context.Context, w cache.Sink) error {
		return r.image.Blob(ctx, d, size, &countingSink{Sink: w, progress: progress})
	})
	if err != nil {
		return 0, err
	}
	return f.Size(), f.Close()
}

// countingSink reports how many bytes it takes.
type countingSink struct {
	cache.Sink
	progress func(int64)
	n        int64
}

func (s *countingSink) Write(p []byte) (int, error) {
	n, err := s.Sink.Write(p)
	s.n += int64(n)
	s.progress(int64(n))
	return n, err
}

// Reset takes back what was reported.
func (s *countingSink) Reset() error {
	s.progress(-s.n)
	s.n = 0
	return s.Sink.Reset()
}
