package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/prefetch"
)

func warmCommand() *cli.Command {
	return &cli.Command{
		Name:      "warm",
		Usage:     "fetch an image, or some of its paths, into the cache",
		ArgsUsage: "IMAGE [PATH...]",
		Description: `Fetches what the cache lacks, several blobs at once; a mount then reads it
without the network. With --learned it fetches what earlier mounts of the image,
or of one that it came from, were seen reading first.

Example: pfmount warm ghcr.io/org/repo:tag world/fs/src

Limitations: an image larger than --cache-size does not stay whole.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "learned", Usage: "fetch what earlier mounts read first"},
			quietFlag("show no progress"), verboseFlag(),
		}, append(imageFlags(), cacheFlags()...)...),
		Action: warmAction,
	}
}

func warmAction(c *cli.Context) error {
	if c.NArg() == 0 {
		return fault.Usagef("no IMAGE given (see pfmount warm --help)")
	}
	r, rows, err := openPaths(c)
	if err != nil {
		return err
	}
	defer r.Close()
	list, err := toWarm(c, r, rows)
	if err != nil {
		return err
	}
	w := &warmer{image: r}
	w.begin(list)
	p := report.StartProgress(c.App.ErrWriter, c.Bool("quiet"), &w.meter, "fetching", "fetching")
	before := r.Image().Fetched().Bytes
	err = w.fetch(c.Context, list, c.Int("max-connections"))
	p.Stop()
	if err != nil {
		return fmt.Errorf("%s: %d of %d blobs are in the cache; run it again to go on: %w",
			r.Image().Ref(), w.meter.Now().Blobs, len(list), err)
	}
	fmt.Fprintf(c.App.Writer, "%d blobs (%s) in the cache, %s fetched\n", len(list),
		report.Size(w.bytes.Load()), report.Size(r.Image().Fetched().Bytes-before))
	return nil
}

// warmBlob is a blob that the cache is to have.
type warmBlob struct {
	digest pfimg.Digest
	size   int64 // -1: nothing says it
}

// toWarm lists what is asked for: the blobs of rows, or what was learned.
func toWarm(c *cli.Context, r *reader.Reader, rows []pfimg.Row) (list []warmBlob, err error) {
	if !c.Bool("learned") {
		wanted := make(map[pfimg.Digest]int64)
		for _, row := range rows {
			collect(r.Index(), row, wanted)
		}
		for d, size := range wanted {
			list = append(list, warmBlob{d, size})
		}
		return list, nil
	}
	if c.NArg() > 1 {
		return nil, fault.Usagef("--learned takes no PATH")
	}
	for _, d := range prefetch.Order(r.Records(), r.Image().Manifest(), r.Index()) {
		size, _ := r.Index().Size(d)
		list = append(list, warmBlob{d, size})
	}
	if len(list) == 0 {
		log := consoleLogger(c.Bool("verbose"))
		log.Warn("no mount of this image, or of one that it came from, was seen reading yet",
			"image", r.Image().Ref().String())
	}
	return list, nil
}

// warmer fills the cache and counts.
type warmer struct {
	image *reader.Reader
	meter fetch.Meter
	bytes atomic.Int64 // decoded, of all blobs that are in the cache
}

// begin tells the meter what is to come: all blobs, since those in the cache are checked, and the
// bytes that it lacks.
func (w *warmer) begin(list []warmBlob) {
	var bytes int64
	for _, b := range list {
		if _, cached := w.image.Stat(b.digest); !cached {
			bytes += max(b.size, 0)
		}
	}
	w.meter.Begin(int64(len(list)), bytes)
}

// fetch fetches blobs, at most n at once.
func (w *warmer) fetch(ctx context.Context, list []warmBlob, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for _, b := range list {
		g.Go(func() error {
			size, err := w.image.Warm(ctx, b.digest, b.size, func(n int64) { w.meter.Add(0, n) })
			if err != nil {
				return err
			}
			w.bytes.Add(size)
			w.meter.Add(1, 0)
			return nil
		})
	}
	return g.Wait()
}

// collect gathers the blobs of a row and of everything below it.
func collect(ix *pfimg.Index, row pfimg.Row, into map[pfimg.Digest]int64) {
	if d, size, ok := ix.Blob(row); ok {
		into[d] = size
		return
	}
	for i := 0; ; i++ {
		child, _, ok := ix.Child(row, i)
		if !ok {
			return
		}
		collect(ix, child, into)
	}
}
