package main

import (
	"context"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/prefetch"
	"github.com/pfmount/pfmount/fusefs"
)

// openServed opens the image of a mount's command line for the daemon.
func openServed(ctx context.Context, c *cli.Context, wanted prefetchConfig, log *slog.Logger,
) (*daemon.Image, error) {
	r, err := parseImage(c, c.Args().First())
	if err != nil {
		return nil, err
	}
	config, err := readerConfig(c, r, log)
	if err != nil {
		return nil, err
	}
	inflight := new(prefetch.Inflight)
	config.Await = inflight.Await
	image, err := reader.Open(ctx, r, config)
	if err != nil {
		return nil, err
	}
	s := &served{image: image, inflight: inflight}
	return &daemon.Image{
		Ref: image.Image().Ref().String(), Digest: image.Image().Digest(),
		Index: image.Index(), Blobs: blobs{image},
		Prefetch: func() (daemon.Prefetcher, error) {
			s.prefetch = newPrefetcher(image, inflight, config, wanted)
			if s.prefetch == nil {
				return nil, nil
			}
			return s, nil
		},
		Stats: s.stats, Tag: image.Image().Resolve, Close: s.close,
	}, nil
}

// served is the image of a mount with what is fetched of it ahead of readers.
type served struct {
	image    *reader.Reader
	inflight *prefetch.Inflight
	prefetch *prefetch.Prefetcher // nil: nothing is fetched ahead
}

var _ daemon.Prefetcher = (*served)(nil)

func (s *served) Observer() fusefs.Observer   { return s.prefetch }
func (s *served) Serve(server *fusefs.Server) { s.prefetch.PushTo(server) }
func (s *served) Stop()                       { s.prefetch.Stop() }

func (s *served) close() error {
	s.prefetch.Close()
	return s.image.Close()
}

// stats counts what was done for the image.
func (s *served) stats() daemon.Stats {
	image := s.image.Image()
	cached, traffic, ahead := s.image.Stats(), image.Fetched(), s.prefetch.Stats()
	return daemon.Stats{
		Source: daemon.SourceStats{
			Bytes: traffic.Bytes, Requests: traffic.Requests, Whole: wholeSize(image),
		},
		Cache: daemon.CacheStats{
			Hits: cached.Hits, Misses: cached.Misses, Failed: cached.Failed,
			Damaged: cached.Damaged, Evicted: cached.Evicted,
		},
		Ahead:  daemon.AheadStats{Hits: ahead.Hits, Wasted: ahead.Wasted, Shown: ahead.Pushed},
		Waited: s.inflight.Waits(), Offline: image.Stale(),
	}
}

// wholeSize is what fetching all of an image brings, its OCI manifest included: what was fetched is
// compared with it. It is 0 for folders and stores, where it is not known.
func wholeSize(image *fetch.Image) int64 {
	return image.Facts().ManifestSize + image.Facts().WireBytes
}

// blobs are those of a mount's image.
type blobs struct{ image *reader.Reader }

var _ fusefs.Blobs = blobs{}

// Open opens a verified blob.
func (b blobs) Open(ctx context.Context, d pfimg.Digest, size int64) (fusefs.File, error) {
	f, err := b.image.Open(ctx, d, size)
	if err != nil {
		return nil, err // not f: a nil *cache.File is no nil fusefs.File
	}
	return f, nil
}
