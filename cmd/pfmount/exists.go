package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/fetch"
)

// errAbsent says that exists found no image: an answer, not a failure.
var errAbsent = errors.New("absent")

func existsCommand() *cli.Command {
	return &cli.Command{
		Name:      "exists",
		Usage:     "say whether an image is there",
		ArgsUsage: "IMAGE",
		Description: `Asks a registry for the manifest's headers and nothing else. Exits with 0 when
the image is there, 3 when it is not, 5 when the registry does not say.

Example: pfmount exists -q ghcr.io/org/repo:tag || pfmount push store:CID ghcr.io/org/repo:tag

Limitations: nothing is verified; pfmount verify does that.`,
		Flags: append([]cli.Flag{
			quietFlag("print nothing on standard output"), verboseFlag(),
			&cli.StringFlag{
				Name: "store", Usage: "the local store of store: references is `DIR`",
				DefaultText: "$PF_STORE, ~/.processfork",
			},
		}, onlineFlags()...),
		Action: existsAction,
	}
}

func existsAction(c *cli.Context) error {
	arg, err := cmdline.OneArg(c, "IMAGE")
	if err != nil {
		return err
	}
	source, err := parseImageArg(c, arg, consoleLogger(c.Bool("verbose")))
	if err != nil {
		return err
	}
	there, err := fetch.Exists(c.Context, source.ref, source.options)
	if err != nil {
		return err
	}
	text := "exists"
	if !there {
		text, err = "absent", shownError{errAbsent}
	}
	if !c.Bool("quiet") {
		fmt.Fprintf(c.App.Writer, "%s: %s\n", source.ref, text)
	}
	return err
}
