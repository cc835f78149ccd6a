package pfimg

import (
	"fmt"
	"strings"
	"unicode"
)

// shown bounds how much of foreign text an error shows, in bytes.
const shown = 300

// quote shows foreign bytes: escaped, and not too long.
func quote[T ~string | ~[]byte](s T) string {
	if len(s) > shown {
		return fmt.Sprintf("%q… (%d bytes)", string(s[:shown]), len(s))
	}
	return fmt.Sprintf("%q", string(s))
}

// clip shortens text of a foreign hand and leaves out what a terminal might obey.
func clip(text string) string {
	if len(text) > shown {
		text = strings.ToValidUTF8(text[:shown], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
