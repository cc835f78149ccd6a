package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/prefetch"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fusefs"
)

// What --prefetch takes.
const (
	prefetchAuto = "auto"
	prefetchNone = "none"
	prefetchAll  = "all"
)

// prefetchConfig is what the user wants of prefetching.
type prefetchConfig struct {
	what  string
	hints bool
}

func parsePrefetch(c *cli.Context) (prefetchConfig, error) {
	what := c.String("prefetch")
	switch what {
	case prefetchAuto, prefetchNone, prefetchAll:
		return prefetchConfig{what, !c.Bool("no-hints")}, nil
	}
	return prefetchConfig{}, usagef("--prefetch: %q is not auto, none or all", what)
}

// newPrefetcher returns the prefetcher of a mount, nil when the user wants none.
func (d *daemon) newPrefetcher(source reader.Config) *prefetch.Prefetcher {
	if d.cfg.prefetch.what == prefetchNone {
		return nil
	}
	image := d.image.Image()
	config := prefetch.Config{
		Index: d.image.Index(), Image: image, Cache: d.image, Inflight: &d.inflight,
		Limits: prefetch.Limits{
			Connections: source.Image.Registry.MaxConns, Fills: d.image.Fills(),
			CacheSize: source.Cache.Size, MaxPush: fusefs.MaxStore,
		},
		Online:    image.Ref().Kind() == ref.Registry && !source.Image.Registry.Offline,
		Whole:     d.cfg.prefetch.what == prefetchAll,
		BlobFault: reader.BlobFault,
		Log:       d.log.With("image", image.Ref().String()),
	}
	if d.cfg.prefetch.hints {
		config.Records = d.image.Records()
	}
	return prefetch.New(config)
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
