package pfimg

import (
	"bytes"
	"fmt"
)

// checkPath says what is wrong with the path of a tree entry, "" for nothing. Only paths that a
// directory listing can show and that cannot leave the tree pass; a backslash is an ordinary byte.
func checkPath(path []byte) string {
	switch {
	case len(path) == 0:
		return "an empty path"
	case len(path) > MaxPath:
		return fmt.Sprintf("a path of more than %d bytes", MaxPath)
	case path[0] == '/':
		return "an absolute path"
	case bytes.IndexByte(path, 0) >= 0:
		return "a NUL in the path"
	}
	for depth := 1; ; depth++ {
		name, rest, more := bytes.Cut(path, []byte("/"))
		switch {
		case len(name) == 0:
			return "an empty name in the path"
		case string(name) == "." || string(name) == "..":
			return fmt.Sprintf("%q in the path", name)
		case len(name) > MaxName:
			return fmt.Sprintf("a name of more than %d bytes", MaxName)
		case depth > MaxDepth:
			return fmt.Sprintf("a path of more than %d names", MaxDepth)
		case !more:
			return ""
		}
		path = rest
	}
}

// checkTarget says what is wrong with the target of a symlink, "" for nothing. Where it points does
// not matter: it is never followed here.
func checkTarget(target []byte) string {
	switch {
	case len(target) == 0:
		return "an empty link_target"
	case len(target) > MaxLink:
		return fmt.Sprintf("a link_target of more than %d bytes", MaxLink)
	case bytes.IndexByte(target, 0) >= 0:
		return "a NUL in link_target"
	}
	return ""
}

// parseMode reads octal text up to 07777.
func parseMode(text []byte) (mode uint16, ok bool) {
	for _, c := range text {
		if c < '0' || c > '7' || mode > 0o777 {
			return 0, false
		}
		mode = mode<<3 | uint16(c-'0')
	}
	return mode, len(text) > 0
}
