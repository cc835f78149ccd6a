package main

import (
	"context"
	"io"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/pfmount/pfmount/cmd/pfmount/doctor"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "check this machine, and the way to an image: for bug reports",
		ArgsUsage: "[IMAGE]",
		Description: `Checks the kernel, FUSE, the helper that mounts for users, the cache, mounts,
environment and proxies. With an image also each step of the way to it: route,
credentials, manifest, signature, blobs, each with its time, and what to do when
it fails. Exits with the code of the first step that failed; warnings do not
count. It changes nothing, fills no cache, and shows of a secret only that it is
set.

Example: pfmount doctor ghcr.io/org/repo:tag

Limitations: of an image it reads the top-level blobs up to 1 MiB, the tree and one
file: pfmount verify reads all. Each step has a minute at most.`,
		Flags:  slices.Concat([]cli.Flag{jsonFlag(), verboseFlag()}, imageFlags(), cacheFlags()),
		Action: doctorAction,
	}
}

func doctorAction(c *cli.Context) error {
	if c.NArg() > 1 {
		return fault.Usagef("unexpected argument %q (see pfmount doctor --help)", c.Args().Get(1))
	}
	cfg := doctor.Config{
		Version: version, HostsDir: absolute(c.String("hosts-dir")),
		Cache: func() (string, int64, error) {
			dir, err := cacheDir(c)
			if err != nil {
				return "", 0, err
			}
			size, err := parseSize(c, "cache-size")
			return dir, size, err
		},
		Spool: func(ctx context.Context, im *fetch.Image, d pfimg.Digest) (io.ReadCloser, error) {
			return reader.Spool(ctx, im, d)
		},
	}
	if !c.Bool("json") {
		cfg.Out = c.App.Writer
		f, ok := cfg.Out.(*os.File)
		cfg.Terminal = ok && term.IsTerminal(int(f.Fd()))
	}
	if c.NArg() == 1 {
		cfg.Image = func() (ref.Ref, fetch.Options, error) {
			a, err := parseImageArg(c, c.Args().First(), consoleLogger(c.Bool("verbose")))
			return a.ref, a.options, err
		}
	}
	d := doctor.Examine(c.Context, cfg)
	if err := c.Context.Err(); err != nil {
		return err
	}
	if c.Bool("json") {
		if err := report.JSON(c.App.Writer, d); err != nil {
			return err
		}
	}
	if err := d.Err(); err != nil {
		return shownError{err}
	}
	return nil
}
