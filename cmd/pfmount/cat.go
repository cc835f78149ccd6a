package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
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
		return fault.Usagef("cat needs an IMAGE and a PATH (see pfmount cat --help)")
	}
	r, rows, err := openPaths(c)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, row := range rows {
		if err := catRow(c, r, row); err != nil {
			return fmt.Errorf("%s: %q: %w", r.Image().Ref(), r.Index().Path(row), err)
		}
	}
	return nil
}

func catRow(c *cli.Context, r *reader.Reader, row pfimg.Row) error {
	if to, ok := r.Index().Link(row); ok {
		return fault.Usagef("is a symlink to %q", to)
	}
	if b, ok := r.Index().Inline(row); ok {
		_, err := c.App.Writer.Write(b)
		return err
	}
	d, size, ok := r.Index().Blob(row)
	if !ok {
		return fault.Usagef("is a folder")
	}
	return r.Copy(c.Context, c.App.Writer, d, size)
}
