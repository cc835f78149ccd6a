package main

import (
	"context"
	"log/slog"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch"
)

// carryFlags are the options of push and pull: those of images, without what only a cache can
// serve.
func carryFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{
			Name: "store", Usage: "the local store of store: references is `DIR`",
			DefaultText: "$PF_STORE, ~/.processfork",
		},
		quietFlag("show no progress"), jsonFlag(), verboseFlag(),
	}
	return append(flags, onlineFlags()...)
}

// onlineFlags are imageFlags without --offline.
func onlineFlags() []cli.Flag {
	return slices.DeleteFunc(imageFlags(),
		func(f cli.Flag) bool { return slices.Contains(f.Names(), "offline") })
}

func quietFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: usage}
}

// indexed builds the index of an image that is carried, without a cache.
func indexed(ctx context.Context, image *fetch.Image, log *slog.Logger) (fetch.Cargo, error) {
	ix, err := reader.BuildIndex(ctx, image, log)
	return fetch.Cargo{Image: image, Index: ix}, err
}
