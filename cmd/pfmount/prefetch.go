package main

import (
	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
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
	return prefetchConfig{}, fault.Usagef("--prefetch: %q is not auto, none or all", what)
}

// newPrefetcher returns the prefetcher of a mount, nil when the user wants none.
func newPrefetcher(source *reader.Reader, inflight *prefetch.Inflight, from reader.Config,
	wanted prefetchConfig,
) *prefetch.Prefetcher {
	if wanted.what == prefetchNone {
		return nil
	}
	image := source.Image()
	config := prefetch.Config{
		Index: source.Index(), Image: image, Cache: source, Inflight: inflight,
		Limits: prefetch.Limits{
			Connections: from.Image.Registry.MaxConns, Fills: source.Fills(),
			CacheSize: from.Cache.Size, MaxPush: fusefs.MaxStore,
		},
		Online:    image.Ref().Kind() == ref.Registry && !from.Image.Registry.Offline,
		Whole:     wanted.what == prefetchAll,
		BlobFault: reader.BlobFault,
		Log:       from.Log.With("image", image.Ref().String()),
	}
	if wanted.hints {
		config.Records = source.Records()
	}
	return prefetch.New(config)
}
