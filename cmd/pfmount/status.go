package main

import (
	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "list mounts: image, digest, process, what was fetched, last errors",
		ArgsUsage: "[MOUNTPOINT]",
		Description: `Asks the background process of each mount, or of the one given.

Example: pfmount status --json | jq '.mounts[].fetched_bytes'

With --check each mount made by a tag also asks its registry, for at most 10 s,
whether the tag names another image by now. The mount stays as it is.

Limitations: of other users' mounts only what mountinfo tells, unless you are
root. A mount that does not answer within 2 s is listed as not answering.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "check", Usage: "ask registries whether tags have moved on since"},
			jsonFlag(),
		},
		Action: statusAction,
	}
}

func statusAction(c *cli.Context) error {
	var only string
	if c.NArg() > 0 {
		arg, err := cmdline.OneArg(c, "MOUNTPOINT")
		if err != nil {
			return err
		}
		if only, err = resolveMountpoint(arg); err != nil {
			return err
		}
	}
	states, err := daemon.States(c.Context, only, c.Bool("check"))
	if err != nil {
		return err
	}
	if only != "" && len(states) == 0 {
		return fault.Mountf("%s: not a mount of pfmount", only)
	}
	if c.Bool("json") {
		return report.JSON(c.App.Writer, struct {
			Schema int            `json:"schema"`
			Mounts []daemon.State `json:"mounts"`
		}{1, states})
	}
	return report.Mounts(c.App.Writer, states)
}
