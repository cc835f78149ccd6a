package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/fetch/safetext"
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
		arg, err := oneArg(c, "MOUNTPOINT")
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
		return mountf("%s: not a mount of pfmount", only)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, struct {
			Schema int            `json:"schema"`
			Mounts []daemon.State `json:"mounts"`
		}{1, states})
	}
	return printStates(c.App.Writer, states)
}

func printStates(w io.Writer, states []daemon.State) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, s := range states {
		fmt.Fprintf(tw, "%s\t%s\n", safetext.Plain(s.Mountpoint), safetext.Plain(s.Image))
		if s.Stale {
			fmt.Fprintf(tw, "  stale\tits process died; pfmount umount %s\n", safetext.Shell(s.Mountpoint))
			continue
		}
		if s.ManifestDigest != "" {
			fmt.Fprintf(tw, "  digest\t%s\n", s.ManifestDigest)
		}
		if s.PID != 0 {
			fmt.Fprintf(tw, "  process\t%d, since %s\n", s.PID, s.Started.Local().Format("2006-01-02 15:04:05"))
			fmt.Fprintf(tw, "  fetched\t%s in %d requests\n", s.Fetched(), s.Requests)
			fmt.Fprintf(tw, "  cache\t%d hits, %d misses\n", s.CacheHits, s.CacheMisses)
		}
		if s.Offline {
			fmt.Fprintf(tw, "  offline\tmounted from the cache\n")
		}
		if t := s.TagState; t != nil {
			switch {
			case t.TagError != "":
				fmt.Fprintf(tw, "  tag\tnot known: %s\n", safetext.Plain(t.TagError))
			case t.TagMoved != nil && *t.TagMoved:
				fmt.Fprintf(tw, "  tag\tmoved on to %s; remount to see that\n", safetext.Plain(t.TagDigest))
			case t.TagMoved != nil:
				fmt.Fprintf(tw, "  tag\tnot moved\n")
			}
		}
		for _, e := range s.LastErrors {
			fmt.Fprintf(tw, "  error\t%s\n", safetext.Plain(e))
		}
	}
	return tw.Flush()
}

// printJSON writes one indented JSON object.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
