package report

import (
	"fmt"
	"io"
	"io/fs"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// Lister prints rows of an index, as ls does.
type Lister struct {
	Index                 *pfimg.Index
	Out                   io.Writer
	Long, Recursive, Null bool
}

// List prints a file, or what is in a folder.
func (l Lister) List(row pfimg.Row) {
	a, _ := l.Index.Attr(row)
	if a.Kind != pfimg.Dir {
		l.line(row, l.Index.Path(row))
		return
	}
	for i := 0; ; i++ {
		child, name, ok := l.Index.Child(row, i)
		if !ok {
			return
		}
		if !l.Recursive {
			l.line(child, name)
			continue
		}
		l.line(child, l.Index.Path(child))
		if a, _ := l.Index.Attr(child); a.Kind == pfimg.Dir {
			l.List(child)
		}
	}
}

func (l Lister) line(row pfimg.Row, name string) {
	end := "\n"
	if l.Null {
		end = "\x00"
	} else {
		name = safetext.Plain(name)
	}
	if !l.Long {
		fmt.Fprint(l.Out, name, end)
		return
	}
	a, _ := l.Index.Attr(row)
	size, mode := fmt.Sprint(a.Size), fs.FileMode(a.Mode&0o777)
	switch a.Kind {
	case pfimg.Dir:
		mode |= fs.ModeDir
	case pfimg.Symlink:
		mode |= fs.ModeSymlink
		if to, ok := l.Index.Link(row); ok {
			name += " -> " + to
		}
	}
	if a.Size < 0 {
		size = "?"
	}
	fmt.Fprintf(l.Out, "%v %12s %s %s%s", mode, size,
		l.Index.Created().UTC().Format("2006-01-02 15:04"), name, end)
}
