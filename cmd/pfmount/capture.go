package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch/capture"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// captureFlags say what is recorded beside a captured directory.
func captureFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "agent", Value: "anonymous",
			Usage: "record `AGENT` as the kind of agent whose session this is",
		},
		&cli.StringFlag{
			Name: "name", Value: "pfmount", Usage: "record `NAME` as the session's name",
		},
		&cli.StringFlag{
			Name: "trace", Usage: "record the messages in `FILE`, JSON lines with role and content",
		},
		&cli.StringFlag{
			Name: "effects",
			Usage: "record the side effects in `FILE`, JSON lines, " +
				"with or without a ledger's header",
		},
		&cli.StringSliceFlag{
			Name: "parent", Usage: "record the image with the id `CID` as a parent (may repeat)",
		},
		&cli.BoolFlag{
			Name: "env",
			Usage: "record the environment; " +
				"the values of names like TOKEN or PASSWORD are redacted",
		},
		&cli.StringFlag{
			Name: "level", Value: "better",
			Usage: "compress at `LEVEL`: fastest, default, better, best, or 1 to 22",
		},
	}
}

// captureDir captures a directory into a temporary folder (in $TMPDIR), which cleanup removes.
func captureDir(c *cli.Context, dir string) (folder string, cleanup func(), err error) {
	o, err := captureOptions(c)
	if err != nil {
		return "", nil, err
	}
	if folder, err = os.MkdirTemp("", "pfmount-capture-"); err != nil {
		return "", nil, err
	}
	cleanup = func() { _ = os.RemoveAll(folder) }
	if _, err = capture.Capture(c.Context, dir, folder, o); err != nil {
		cleanup()
		if errors.Is(err, capture.ErrSource) {
			err = fault.Mark(err, fault.ErrUsage)
		}
		return "", nil, fmt.Errorf("capture: %w", err)
	}
	return folder, cleanup, nil
}

func captureOptions(c *cli.Context) (capture.Options, error) {
	o := capture.Options{
		Agent: c.String("agent"), Name: c.String("name"), Version: version,
		Trace: c.String("trace"), Effects: c.String("effects"),
		Log: consoleLogger(c.Bool("verbose")),
	}
	for _, cid := range c.StringSlice("parent") {
		d, err := pfimg.ParseDigest(cid)
		if err != nil {
			return o, fault.Usagef("--parent: %q is not sha256: and 64 hex digits", cid)
		}
		o.Parents = append(o.Parents, d)
	}
	if c.Bool("env") {
		o.Environ = os.Environ()
	}
	var err error
	if o.Level, err = capture.ParseLevel(c.String("level")); err != nil {
		return o, fault.Usagef("--%v", err)
	}
	return o, nil
}
