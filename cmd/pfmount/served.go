package main

import (
	"context"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fusefs"
)

// openServed opens the image of a mount's command line for the daemon.
func openServed(
	ctx context.Context, c *cli.Context, prefetch string, log *slog.Logger,
) (*daemon.Image, error) {
	s, err := openIndexed(ctx, c, c.Args().First(), log)
	if err != nil {
		return nil, err
	}
	return &daemon.Image{
		Ref: s.image.Ref().String(), Digest: s.image.Digest(), Index: s.index, Blobs: s.blobs(),
		Prefetch: func() (daemon.Prefetcher, error) {
			if err := s.startPrefetch(c, prefetch); err != nil || s.prefetch == nil {
				return nil, err
			}
			return served{s.prefetch}, nil
		},
		Stats: s.stats, Tag: s.image.Resolve, Close: s.Close,
	}, nil
}

// served is a prefetcher as the daemon knows it.
type served struct{ p *prefetcher }

func (p served) Observer() fusefs.Observer {
	var o fusefs.Options
	p.p.watch(&o)
	return o.Observer
}

func (p served) Serve(s *fusefs.Server) { p.p.showTo(s) }
func (p served) Stop()                  { p.p.stop() }

// stats counts what was done for the image.
func (s *session) stats() daemon.Stats {
	cached, traffic := s.store.Stats(), s.image.Fetched()
	ahead, shown := s.prefetch.stats()
	return daemon.Stats{
		Source: daemon.SourceStats{
			Bytes: traffic.Bytes, Requests: traffic.Requests, Whole: wholeSize(s.image),
		},
		Cache: daemon.CacheStats{
			Hits: int64(cached.Hits), Misses: int64(cached.Misses), Failed: int64(cached.Failed),
			Damaged: int64(cached.Damaged), Evicted: int64(cached.Evicted),
		},
		Ahead:  daemon.AheadStats{Hits: ahead.Hits, Wasted: ahead.Wasted, Shown: shown},
		Waited: s.early.waits.Load(), Offline: s.image.Stale(),
	}
}

// wholeSize is what fetching all of an image brings, its OCI manifest included: what was fetched is
// compared with it. It is 0 for folders and stores, where it is not known.
func wholeSize(image *fetch.Image) int64 { return image.ManifestSize() + image.WireBytes() }
