package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/sign"
)

// carryFlags are the options of push and pull: those of images, without what only a cache can serve.
func carryFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "store", Usage: "the local store of store: references is `DIR`", DefaultText: "$PF_STORE, ~/.processfork"},
		quietFlag("show no progress"), jsonFlag(), verboseFlag(),
	}
	return append(flags, onlineFlags()...)
}

// onlineFlags are imageFlags without --offline.
func onlineFlags() []cli.Flag {
	return slices.DeleteFunc(imageFlags(), func(f cli.Flag) bool { return slices.Contains(f.Names(), "offline") })
}

func quietFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: usage}
}

// twoArgs returns a command's two positional arguments, or says which is missing.
func twoArgs(c *cli.Context, first, second string) (string, string, error) {
	switch c.NArg() {
	case 0:
		return "", "", usagef("no %s given (see pfmount %s--help)", first, commandPrefix(c))
	case 1:
		return "", "", usagef("no %s given (see pfmount %s--help)", second, commandPrefix(c))
	case 2:
		return c.Args().Get(0), c.Args().Get(1), nil
	}
	return "", "", usagef("unexpected argument %q (see pfmount %s--help)", c.Args().Get(2), commandPrefix(c))
}

// indexed builds the index of an image that is carried, without a cache.
func indexed(ctx context.Context, image *fetch.Image, log *slog.Logger) (fetch.Cargo, error) {
	ix, err := reader.BuildIndex(ctx, image, log)
	return fetch.Cargo{Image: image, Index: ix}, err
}

// carried is the JSON of `pfmount push` and `pfmount pull`.
type carried struct {
	Schema         int     `json:"schema"`
	Source         string  `json:"source"`
	Destination    string  `json:"destination"`
	ManifestDigest string  `json:"manifest_digest"`
	CID            string  `json:"cid"`
	Blobs          int     `json:"blobs"`
	Copied         int     `json:"copied"`
	Skipped        int     `json:"skipped"`
	Bytes          int64   `json:"bytes"`
	Seconds        float64 `json:"seconds"`
}

// trip is one push or pull, for what is said of it.
type trip struct {
	verb   string // "pushed", "pulled"
	source string
	dest   string // as it can be opened
	cid    string
	log    *slog.Logger
	start  time.Time
}

// end says what was done, or how to go on after an error.
func (t trip) end(c *cli.Context, report fetch.Report, err error) error {
	for _, w := range report.Warnings {
		t.log.Warn(w, "image", t.dest)
	}
	if err != nil {
		return t.unfinished(report, err)
	}
	took := time.Since(t.start)
	if !c.Bool("quiet") {
		fmt.Fprintf(c.App.ErrWriter, "%s %d blobs: %d copied (%s), %d were there, in %s\n", t.verb, report.Blobs,
			report.Copied, sizeText(report.Bytes), report.Skipped, took.Round(time.Millisecond))
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, carried{
			Schema: 1, Source: t.source, Destination: t.dest, ManifestDigest: report.Digest,
			CID: t.cid, Blobs: report.Blobs, Copied: report.Copied, Skipped: report.Skipped,
			Bytes: report.Bytes, Seconds: took.Seconds(),
		})
	}
	_, err = fmt.Fprintln(c.App.Writer, t.dest)
	return err
}

// unfinished adds to an error how to go on, where running the command again is the way.
func (t trip) unfinished(report fetch.Report, err error) error {
	for _, stays := range []error{local.ErrTaken, registry.ErrTooLarge, ref.ErrInvalid, sign.ErrKey, pfimg.ErrIntegrity, pfimg.ErrUnsupported} {
		if errors.Is(err, stays) {
			return err
		}
	}
	if report.Blobs == 0 && !errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w; %d blobs are there (%d copied now); the same command goes on from here", err, report.Blobs, report.Copied)
}
