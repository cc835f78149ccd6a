package main

import (
	"bufio"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/cmd/pfmount/report"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list an image's files without mounting it",
		ArgsUsage: "IMAGE [PATH...]",
		Description: `Lists paths as the mount shows them; without a PATH, the root.

Example: pfmount ls -R localhost:5000/team/sess:v1 world/fs

Limitations: the size of a large top-level blob that was never fetched is "?".`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{
				Name: "long", Aliases: []string{"l"}, Usage: "show modes, sizes, link targets",
			},
			&cli.BoolFlag{
				Name: "recursive", Aliases: []string{"R"},
				Usage: "list folders inside folders, too, as full paths",
			},
			&cli.BoolFlag{
				Name: "null", Aliases: []string{"0"},
				Usage: "end each name with NUL and show it unchanged",
			},
			verboseFlag(),
		}, append(imageFlags(), cacheFlags()...)...),
		Action: lsAction,
	}
}

func lsAction(c *cli.Context) error {
	if c.NArg() == 0 {
		return fault.Usagef("no IMAGE given (see pfmount ls --help)")
	}
	r, rows, err := openPaths(c)
	if err != nil {
		return err
	}
	defer r.Close()
	out := bufio.NewWriter(c.App.Writer)
	l := report.Lister{
		Index: r.Index(), Out: out,
		Long: c.Bool("long"), Recursive: c.Bool("recursive"), Null: c.Bool("null"),
	}
	for _, row := range rows {
		l.List(row)
	}
	return out.Flush()
}

// findPaths looks up paths of an image. No path means the root.
func findPaths(r *reader.Reader, paths []string) ([]pfimg.Row, error) {
	if len(paths) == 0 {
		return []pfimg.Row{pfimg.Root}, nil
	}
	var rows []pfimg.Row
	for _, p := range paths {
		row, ok := r.Index().Find(strings.Trim(p, "/"))
		if !ok {
			return nil, fault.Usagef("%s: no such file in the image: %q", r.Image().Ref(), p)
		}
		rows = append(rows, row)
	}
	return rows, nil
}
