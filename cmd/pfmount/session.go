package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// eagerLimit is the size on the wire up to which a top-level blob is fetched
// when an image is opened, so that its size can be shown (1 MiB).
const eagerLimit = 1 << 20

// minFiles is the least limit on open files under which an image is opened: 32
// for the process itself, 16 for blobs, as many for connections. With fewer,
// readers in numbers would wait for each other and fail.
const minFiles = 64

// enoughFiles refuses a limit that would make reads fail later.
func enoughFiles() error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if r.Cur < minFiles {
		return usagef("at most %d files may be open at once, %d are needed: raise the limit (ulimit -n %d)", r.Cur, minFiles, minFiles)
	}
	return nil
}

// session is an opened image with the cache behind it.
type session struct {
	name  string // as typed
	log   *slog.Logger
	store *cache.Store
	image *fetch.Image
	index *pfimg.Index

	early    *fetches
	prefetch *prefetcher // nil: nothing is fetched that is not read
}

// openSession opens and verifies an image. The index is not built yet.
func openSession(ctx context.Context, c *cli.Context, name string, log *slog.Logger) (*session, error) {
	if err := enoughFiles(); err != nil {
		return nil, err
	}
	imageRef, err := parseImage(name)
	if err != nil {
		return nil, err
	}
	store, err := openCache(c, log)
	if err != nil {
		return nil, err
	}
	o, err := fetchOptions(c, imageRef, meta{store}, log)
	if err != nil {
		store.Close()
		return nil, err
	}
	s := &session{name: name, log: log, store: store, early: newFetches()}
	o.Preload = func(d pfimg.Digest) bool { return !store.Has(d) }
	if s.image, err = fetch.Open(ctx, imageRef, o); err != nil {
		store.Close()
		return nil, err
	}
	warn(log, s.image)
	return s, nil
}

func (s *session) blobs() blobs { return blobs{s.store, s.image, s.early} }

func (s *session) Close() error {
	s.prefetch.end()
	err := s.store.Close()
	return errors.Join(err, s.image.Close())
}

// openIndexed opens an image and builds its index.
func openIndexed(ctx context.Context, c *cli.Context, name string, log *slog.Logger) (*session, error) {
	s, err := openSession(ctx, c, name, log)
	if err != nil {
		return nil, err
	}
	if err := s.buildIndex(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openPaths opens the image and finds the paths that a command's arguments name.
func openPaths(c *cli.Context) (*session, []pfimg.Row, error) {
	s, err := openIndexed(c.Context, c, c.Args().First(), consoleLogger(c.Bool("verbose")))
	if err != nil {
		return nil, nil, err
	}
	rows, err := s.find(c.Args().Tail())
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, rows, nil
}

// buildIndex fetches the small top-level blobs in one round, together with the
// tree and the page table, and builds the index from these two.
func (s *session) buildIndex(ctx context.Context) error {
	defer s.image.DropEarly()
	sizes := s.fetchTopLevel(ctx)
	ix, err := pfimg.Build(ctx, s.image.Manifest(), s.blobs().stream)
	if err != nil {
		return fmt.Errorf("%s: %w", s.image.Ref(), err)
	}
	for d, n := range sizes {
		ix.SetSize(d, n)
	}
	for _, w := range ix.Warnings() {
		s.log.Warn(w, "image", s.image.Ref().String())
	}
	s.index = ix
	return nil
}

// fetchTopLevel asks for the likely top-level blobs at once and returns the
// sizes it learned. What fails here is not fatal: Build meets the failure of a
// blob it needs, a reader that of any other.
func (s *session) fetchTopLevel(ctx context.Context) map[pfimg.Digest]int64 {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards sizes
	sizes := make(map[pfimg.Digest]int64)
	know := func(d pfimg.Digest, n int64) { mu.Lock(); sizes[d] = n; mu.Unlock() }
	for _, top := range s.image.Manifest().TopLevel() {
		wire, hint, ok := s.image.Wire(top.Digest)
		needed := top.Path == "world/fs" || top.Path == "cache/manifest.json"
		if ok && (wire <= eagerLimit || needed) {
			wg.Go(func() {
				f, err := s.blobs().Open(ctx, top.Digest, -1)
				if err != nil {
					s.log.Debug("top-level blob not read yet", "path", top.Path, "error", err)
					return
				}
				know(top.Digest, f.Size())
				f.Close()
			})
		} else if n, cached := s.store.Stat(top.Digest); cached {
			know(top.Digest, n)
		} else if hint >= 0 {
			know(top.Digest, hint)
		}
	}
	wg.Wait()
	return sizes
}

// warn passes on what opening an image had to say: of its signature, above all.
func warn(log *slog.Logger, image *fetch.Image) {
	for _, w := range image.Warnings() {
		log.Warn(w, "image", image.Ref().String())
	}
}

// copyBlob writes a whole blob to w.
func (s *session) copyBlob(ctx context.Context, w io.Writer, d pfimg.Digest, size int64) error {
	f, err := s.blobs().Open(ctx, d, size)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, io.NewSectionReader(f, 0, f.Size()))
	return err
}
