package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
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
		return usagef("no IMAGE given (see pfmount warm --help)")
	}
	s, rows, err := openPaths(c)
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := s.toWarm(c, rows)
	if err != nil {
		return err
	}
	w := &warmer{s: s}
	w.begin(list)
	p := startProgress(c, &w.meter, "fetching", "fetching")
	before := s.image.Fetched().Bytes
	err = w.fetch(c.Context, list, c.Int("max-connections"))
	p.stop()
	if err != nil {
		return fmt.Errorf("%s: %d of %d blobs are in the cache; run it again to go on: %w",
			s.image.Ref(), w.meter.Now().Blobs, len(list), err)
	}
	fmt.Fprintf(c.App.Writer, "%d blobs (%s) in the cache, %s fetched\n", len(list),
		sizeText(w.bytes.Load()), sizeText(s.image.Fetched().Bytes-before))
	return nil
}

// warmBlob is a blob that the cache is to have.
type warmBlob struct {
	digest pfimg.Digest
	size   int64 // -1: nothing says it
}

// toWarm lists what is asked for: the blobs of rows, or what was learned.
func (s *session) toWarm(c *cli.Context, rows []pfimg.Row) (list []warmBlob, err error) {
	if !c.Bool("learned") {
		wanted := make(map[pfimg.Digest]int64)
		for _, row := range rows {
			s.collect(row, wanted)
		}
		for d, size := range wanted {
			list = append(list, warmBlob{d, size})
		}
		return list, nil
	}
	if c.NArg() > 1 {
		return nil, usagef("--learned takes no PATH")
	}
	for _, d := range s.learned() {
		size, _ := s.index.Size(d)
		list = append(list, warmBlob{d, size})
	}
	if len(list) == 0 {
		s.log.Warn("no mount of this image, or of one that it came from, was seen reading yet", "image", s.image.Ref().String())
	}
	return list, nil
}

// warmer fills the cache and counts.
type warmer struct {
	s     *session
	meter fetch.Meter
	bytes atomic.Int64 // decoded, of all blobs that are in the cache
}

// begin tells the meter what is to come: all blobs, since those in the cache are checked, and the bytes that it lacks.
func (w *warmer) begin(list []warmBlob) {
	var bytes int64
	for _, b := range list {
		if _, cached := w.s.store.Stat(b.digest); !cached {
			bytes += max(b.size, 0)
		}
	}
	w.meter.Begin(int64(len(list)), bytes)
}

// fetch opens blobs, which fills the cache, at most n at once.
func (w *warmer) fetch(ctx context.Context, list []warmBlob, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for _, b := range list {
		g.Go(func() error {
			f, err := w.s.store.Open(ctx, b.digest, b.size, func(ctx context.Context, to cache.Sink) error {
				return w.s.image.Blob(ctx, b.digest, b.size, &countedSink{Sink: to, meter: &w.meter})
			})
			if err != nil {
				return err
			}
			w.bytes.Add(f.Size())
			w.meter.Add(1, 0)
			return f.Close()
		})
	}
	return g.Wait()
}

// countedSink tells a meter what is written.
type countedSink struct {
	cache.Sink
	meter *fetch.Meter
	n     int64
}

func (s *countedSink) Write(p []byte) (int, error) {
	n, err := s.Sink.Write(p)
	s.n += int64(n)
	s.meter.Add(0, int64(n))
	return n, err
}

// Reset takes back what was counted.
func (s *countedSink) Reset() error {
	s.meter.Add(0, -s.n)
	s.n = 0
	return s.Sink.Reset()
}

// collect gathers the blobs of a row and of everything below it.
func (s *session) collect(row pfimg.Row, into map[pfimg.Digest]int64) {
	if d, size, ok := s.index.Blob(row); ok {
		into[d] = size
		return
	}
	for i := 0; ; i++ {
		child, _, ok := s.index.Child(row, i)
		if !ok {
			return
		}
		s.collect(child, into)
	}
}
