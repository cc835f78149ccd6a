package ahead

import "github.com/pfmount/pfmount/fetch/pfimg"

// Tree is what is read of an image's index. The names of a directory are neighbours: their rows
// follow each other.
type Tree interface {
	Parent(r pfimg.Row) pfimg.Row
	Child(dir pfimg.Row, i int) (r pfimg.Row, name string, ok bool)
	Attr(r pfimg.Row) (a pfimg.Attr, ok bool)
}

var _ Tree = (*pfimg.Index)(nil)

// Walks returns the orders in which programs walk a tree. Names come as they are listed, which is
// also the order of inode numbers, so it does not matter whether a program sorts by these. What
// differs is when it enters a directory: as it meets it, between files (find, tar, cp -r, grep -r,
// du, zip), or after all the files beside it (rsync, os.walk, most build tools).
func Walks(t Tree) []Order {
	return []Order{
		func(r pfimg.Row) (pfimg.Row, bool) { return (&walk{t, maxSteps}).mixed(r) },
		func(r pfimg.Row) (pfimg.Row, bool) { return (&walk{t, maxSteps}).filesFirst(r) },
	}
}

// First returns the first file in a directory; ok is false when it has none but in directories of
// its own.
func First(t Tree, dir pfimg.Row) (r pfimg.Row, ok bool) {
	return (&walk{t, maxSteps}).first(dir, pfimg.File)
}

// List returns the order of a list of n files, whose rows are 1 to n.
func List(n int) []Order {
	return []Order{func(r pfimg.Row) (pfimg.Row, bool) { return r + 1, r < pfimg.Row(n) }}
}

// maxSteps bounds the names looked at to find one file: directories and links have none.
const maxSteps = 4096

// walk finds files in a tree.
type walk struct {
	tree  Tree
	steps int
}

// kind returns what a row is, 0 beyond the last one or when enough was looked at. An empty file is
// none, since its content is never requested.
func (w *walk) kind(r pfimg.Row) pfimg.Kind {
	if w.steps--; w.steps < 0 {
		return 0
	}
	a, _ := w.tree.Attr(r)
	if a.Kind == pfimg.File && a.Size == 0 {
		return pfimg.Symlink
	}
	return a.Kind
}

// beside returns the row that follows r in its directory.
func (w *walk) beside(r pfimg.Row) (pfimg.Row, bool) {
	return r + 1, r != pfimg.Root && w.tree.Parent(r+1) == w.tree.Parent(r)
}

func (w *walk) mixed(r pfimg.Row) (pfimg.Row, bool) {
	for {
		next, _, ok := w.tree.Child(r, 0)
		for !ok {
			if next, ok = w.beside(r); !ok {
				if r = w.tree.Parent(r); r <= pfimg.Root {
					return 0, false
				}
			}
		}
		switch r = next; w.kind(r) {
		case pfimg.File:
			return r, true
		case 0:
			return 0, false
		}
	}
}

func (w *walk) filesFirst(r pfimg.Row) (pfimg.Row, bool) {
	if found, ok := w.among(r, pfimg.File); ok {
		return found, true
	}
	dir := w.tree.Parent(r)
	if found, ok := w.below(dir); ok {
		return found, true
	}
	for ; dir > pfimg.Root; dir = w.tree.Parent(dir) {
		for next, ok := w.among(dir, pfimg.Dir); ok; next, ok = w.among(next, pfimg.Dir) {
			if found, ok := w.enter(next); ok {
				return found, true
			}
		}
	}
	return 0, false
}

// among returns the first row of a kind that follows r in its directory.
func (w *walk) among(r pfimg.Row, k pfimg.Kind) (pfimg.Row, bool) {
	for next, ok := w.beside(r); ok; next, ok = w.beside(next) {
		switch w.kind(next) {
		case k:
			return next, true
		case 0:
			return 0, false
		}
	}
	return 0, false
}

// first returns the first row of a kind in a directory.
func (w *walk) first(dir pfimg.Row, k pfimg.Kind) (pfimg.Row, bool) {
	r, _, ok := w.tree.Child(dir, 0)
	if !ok || w.kind(r) == k {
		return r, ok
	}
	return w.among(r, k)
}

// enter returns the first file that a walk meets in a directory.
func (w *walk) enter(dir pfimg.Row) (pfimg.Row, bool) {
	if r, ok := w.first(dir, pfimg.File); ok {
		return r, true
	}
	return w.below(dir)
}

// below returns the first file in the directories of a directory.
func (w *walk) below(dir pfimg.Row) (pfimg.Row, bool) {
	for sub, ok := w.first(dir, pfimg.Dir); ok; sub, ok = w.among(sub, pfimg.Dir) {
		if r, ok := w.enter(sub); ok {
			return r, true
		}
	}
	return 0, false
}
