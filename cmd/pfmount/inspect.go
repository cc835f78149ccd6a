package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show what an image is: id, agent, parents, signature, sizes",
		ArgsUsage: "IMAGE",
		Description: `Verifies the signature, reads the tree and the page table, and prints a
summary.

Example: pfmount inspect --json ghcr.io/org/repo:tag

Limitations: decoded_bytes counts only sizes that are known without fetching.`,
		Flags:  slices.Concat([]cli.Flag{jsonFlag(), verboseFlag()}, imageFlags(), cacheFlags()),
		Action: inspectAction,
	}
}

func inspectAction(c *cli.Context) error {
	arg, err := cmdline.OneArg(c, "IMAGE")
	if err != nil {
		return err
	}
	r, err := openCached(c, arg)
	if err != nil {
		return err
	}
	defer r.Close()
	return report.Image(c.App.Writer, r.Image(), r.Index(), c.Bool("json"))
}
