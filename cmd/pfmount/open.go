package main

import (
	"context"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// imageArg is the IMAGE of a command line, with the options that its flags say.
type imageArg struct {
	ref     ref.Ref
	options fetch.Options
}

// parseImageArg reads the argument IMAGE and the flags that say how it is reached. When only the
// flags are wrong, the reference is returned with the error.
func parseImageArg(c *cli.Context, name string, log *slog.Logger) (a imageArg, err error) {
	if a.ref, err = parseImage(c, name); err != nil {
		return a, err
	}
	a.options, err = fetchOptions(c, a.ref, log)
	return a, err
}

// parseImage reads the argument IMAGE. Paths become absolute.
func parseImage(c *cli.Context, name string) (ref.Ref, error) {
	r, err := ref.Parse(name)
	if err != nil {
		return r, err
	}
	return r.InStore(c.String("store")).Abs()
}

// open opens the image without a cache.
func (a imageArg) open(ctx context.Context) (*fetch.Image, error) {
	return reader.OpenImage(ctx, a.ref, a.options)
}

// openCached opens the image of a command line behind the cache.
func openCached(c *cli.Context, name string) (*reader.Reader, error) {
	r, err := parseImage(c, name)
	if err != nil {
		return nil, err
	}
	config, err := readerConfig(c, r, consoleLogger(c.Bool("verbose")))
	if err != nil {
		return nil, err
	}
	return reader.Open(c.Context, r, config)
}

// openPaths opens an image behind the cache and finds the paths that the arguments after it name.
func openPaths(c *cli.Context) (*reader.Reader, []pfimg.Row, error) {
	image, err := openCached(c, c.Args().First())
	if err != nil {
		return nil, nil, err
	}
	rows, err := findPaths(image, c.Args().Tail())
	if err != nil {
		image.Close()
		return nil, nil, err
	}
	return image, rows, nil
}

// readerConfig returns what the flags say about an image behind the cache.
func readerConfig(c *cli.Context, r ref.Ref, log *slog.Logger) (reader.Config, error) {
	store, err := cacheOptions(c, log)
	if err != nil {
		return reader.Config{}, err
	}
	image, err := fetchOptions(c, r, log)
	return reader.Config{Cache: store, Image: image, Log: log}, err
}
