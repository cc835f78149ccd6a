package capture

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func lastSlash(path string) int { return strings.LastIndexByte(path, '/') }

// twins are the names of one folder that are recorded under one path because they are not UTF-8.
// nil, as a rule: there are none.
type twins map[string]*twin

type twin struct {
	names int
	first string // the first of them, once it was seen
	dir   bool   // it is a folder
}

// findTwins finds names that are recorded alike.
func findTwins(names []string) twins {
	var found twins
	for _, n := range names {
		if !utf8.ValidString(n) {
			if found == nil {
				found = twins{}
			}
			found[lossy(n)] = &twin{}
		}
	}
	if found == nil {
		return nil
	}
	for _, n := range names {
		if w := found[lossy(n)]; w != nil {
			w.names++
		}
	}
	return found
}

// isTwin tells whether another name is recorded alike.
func (w twins) isTwin(name string) bool {
	if w == nil {
		return false
	}
	t := w[lossy(name)]
	return t != nil && t.names > 1
}

// check refuses a folder and something else under one path: such an image could not be mounted.
func (w twins) check(f folder, name string, mode uint32) error {
	if !w.isTwin(name) {
		return nil
	}
	t, dir := w[lossy(name)], mode&unix.S_IFMT == unix.S_IFDIR
	if t.first == "" {
		t.first, t.dir = name, dir
	}
	if t.dir != dir {
		return source(
			f.join(name),
			fmt.Errorf("recorded, its name becomes that of %q, and only one of the two is a folder",
				t.first),
		)
	}
	return nil
}
