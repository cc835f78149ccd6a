package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

func catCommand() *cli.Command {
	return &cli.Command{
		Name:      "cat",
		Usage:     "print files of an image without mounting it",
		ArgsUsage: "IMAGE PATH...",
		Description: `Fetches, verifies and caches only the files named.

Example: pfmount cat ghcr.io/org/repo:tag trace/messages.jsonl | jq .role

Limitations: symlinks are not followed; the error names the target.`,
		Flags:  append([]cli.Flag{verboseFlag()}, append(imageFlags(), cacheFlags()...)...),
		Action: catAction,
	}
}

func catAction(c *cli.Context) error {
	if c.NArg() < 2 {
		return usagef("cat needs an IMAGE and a PATH (see pfmount cat --help)")
	}
	s, rows, err := openPaths(c)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, row := range rows {
		if err := s.catRow(c, row); err != nil {
			return fmt.Errorf("%s: %q: %w", s.image.Ref(), s.index.Path(row), err)
		}
	}
	return nil
}

func (s *session) catRow(c *cli.Context, row pfimg.Row) error {
	if to, ok := s.index.Link(row); ok {
		return usagef("is a symlink to %q", to)
	}
	if b, ok := s.index.Inline(row); ok {
		_, err := c.App.Writer.Write(b)
		return err
	}
	d, size, ok := s.index.Blob(row)
	if !ok {
		return usagef("is a folder")
	}
	return s.copyBlob(c.Context, c.App.Writer, d, size)
}
