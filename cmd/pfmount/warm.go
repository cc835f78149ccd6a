package main

import (
	"fmt"
	"sync/atomic"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

func warmCommand() *cli.Command {
	return &cli.Command{
		Name:      "warm",
		Usage:     "fetch an image, or some of its paths, into the cache",
		ArgsUsage: "IMAGE [PATH...]",
		Description: `Fetches what the cache lacks, several blobs at once; a mount then reads it
without the network.

Example: pfmount warm ghcr.io/org/repo:tag world/fs/src

Limitations: an image larger than --cache-size does not stay whole.`,
		Flags:  append([]cli.Flag{verboseFlag()}, append(imageFlags(), cacheFlags()...)...),
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
	wanted := make(map[pfimg.Digest]int64)
	for _, row := range rows {
		s.collect(row, wanted)
	}
	g, ctx := errgroup.WithContext(c.Context)
	g.SetLimit(c.Int("max-connections"))
	var bytes, blobs atomic.Int64
	before := s.image.Fetched().Bytes
	for d, size := range wanted {
		g.Go(func() error {
			f, err := s.blobs().Open(ctx, d, size)
			if err != nil {
				return err
			}
			bytes.Add(f.Size())
			blobs.Add(1)
			return f.Close()
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("%s: %d of %d blobs are in the cache; run it again to go on: %w", s.image.Ref(), blobs.Load(), len(wanted), err)
	}
	fmt.Fprintf(c.App.Writer, "%d blobs (%s) in the cache, %s fetched\n", blobs.Load(),
		humanize.IBytes(uint64(bytes.Load())), humanize.IBytes(uint64(s.image.Fetched().Bytes-before)))
	return nil
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
