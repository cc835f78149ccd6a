package safetext

import "strings"

// Shell quotes a path so that it can be pasted into a shell.
func Shell(path string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("/.-_", r) || r >= '0' && r <= '9' ||
			r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
