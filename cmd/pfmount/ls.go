package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/safetext"
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
			&cli.BoolFlag{Name: "long", Aliases: []string{"l"}, Usage: "show modes, sizes, link targets"},
			&cli.BoolFlag{Name: "recursive", Aliases: []string{"R"}, Usage: "list folders inside folders, too, as full paths"},
			&cli.BoolFlag{Name: "null", Aliases: []string{"0"}, Usage: "end each name with NUL and show it unchanged"},
			verboseFlag(),
		}, append(imageFlags(), cacheFlags()...)...),
		Action: lsAction,
	}
}

func lsAction(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("no IMAGE given (see pfmount ls --help)")
	}
	r, rows, err := openPaths(c)
	if err != nil {
		return err
	}
	defer r.Close()
	out := bufio.NewWriter(c.App.Writer)
	l := lister{r.Index(), out, c.Bool("long"), c.Bool("recursive"), c.Bool("null")}
	for _, row := range rows {
		l.list(row)
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
			return nil, usagef("%s: no such file in the image: %q", r.Image().Ref(), p)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// lister prints rows of an index.
type lister struct {
	ix                    *pfimg.Index
	w                     io.Writer
	long, recursive, null bool
}

func (l lister) list(row pfimg.Row) {
	a, _ := l.ix.Attr(row)
	if a.Kind != pfimg.Dir {
		l.line(row, l.ix.Path(row))
		return
	}
	for i := 0; ; i++ {
		child, name, ok := l.ix.Child(row, i)
		if !ok {
			return
		}
		if !l.recursive {
			l.line(child, name)
			continue
		}
		l.line(child, l.ix.Path(child))
		if a, _ := l.ix.Attr(child); a.Kind == pfimg.Dir {
			l.list(child)
		}
	}
}

func (l lister) line(row pfimg.Row, name string) {
	end := "\n"
	if l.null {
		end = "\x00"
	} else {
		name = safetext.Plain(name)
	}
	if !l.long {
		fmt.Fprint(l.w, name, end)
		return
	}
	a, _ := l.ix.Attr(row)
	size, mode := fmt.Sprint(a.Size), fs.FileMode(a.Mode&0o777)
	switch a.Kind {
	case pfimg.Dir:
		mode |= fs.ModeDir
	case pfimg.Symlink:
		mode |= fs.ModeSymlink
		if to, ok := l.ix.Link(row); ok {
			name += " -> " + to
		}
	}
	if a.Size < 0 {
		size = "?"
	}
	fmt.Fprintf(l.w, "%v %12s %s %s%s", mode, size, l.ix.Created().UTC().Format("2006-01-02 15:04"), name, end)
}
