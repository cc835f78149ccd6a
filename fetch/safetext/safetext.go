// Package safetext makes foreign text fit for a terminal and a log: what an image, a registry, a
// file name or a configuration says. Its results are valid UTF-8 of a bounded length and hold
// neither control characters (ESC, C1, line ends) nor characters that change how others are
// shown (bidirectional controls, zero-width characters, spaces other than U+0020).
//
// It does not know what a text means: secrets must be removed before.
package safetext

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPlain is the longest text that Plain returns as it is, in bytes: longer than any path.
const maxPlain = 16 << 10

const ellipsis = "…"

// Clip escapes the unsafe characters of s as Go does (\n, \x1b, \u202e) and cuts the result to
// max bytes, at least 3, the last of which are "…" then. Backslashes and quotes are left alone:
// what is already escaped is not escaped again, and Clip of its own result changes nothing.
func Clip(s string, max int) string { return escape(s, max, strconv.IsPrint) }

// ASCII is Clip that also escapes everything outside ASCII. Only the ellipsis, "...", differs.
func ASCII(s string, max int) string {
	cut := escape(s, max, func(r rune) bool { return r < unicode.MaxASCII && strconv.IsPrint(r) })
	return strings.Replace(cut, ellipsis, "...", 1) // both have 3 bytes
}

// Quote returns a Go string literal of s. One longer than max bytes is cut, and followed by "…"
// and its length.
func Quote[T ~string | ~[]byte](s T, max int) string {
	if len(s) <= max {
		return strconv.Quote(string(s))
	}
	cut := max
	for cut > max-utf8.UTFMax && cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(string(s[:cut])) + ellipsis + " (" + strconv.Itoa(len(s)) + " bytes)"
}

// Plain returns s as it is if all of it is safe, else quoted. It suits names and paths, of which
// most need nothing and the others must be told apart.
func Plain(s string) string {
	unsafe := func(r rune) bool { return !strconv.IsPrint(r) }
	if len(s) > maxPlain || !utf8.ValidString(s) || strings.ContainsFunc(s, unsafe) {
		return Quote(s, maxPlain)
	}
	return s
}

// escape returns s with the characters escaped for which safe is false, cut to max bytes.
func escape(s string, max int, safe func(rune) bool) string {
	b := make([]byte, 0, min(len(s), max)+16)
	fits := 0 // bytes of b that leave room for the ellipsis
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, `\x`...)
			b = append(b, "0123456789abcdef"[s[0]>>4], "0123456789abcdef"[s[0]&15])
		case safe(r):
			b = append(b, s[:n]...)
		default:
			literal := strconv.QuoteRuneToASCII(r)
			b = append(b, literal[1:len(literal)-1]...)
		}
		if len(b) > max {
			return string(b[:fits]) + ellipsis
		}
		if len(b)+len(ellipsis) <= max {
			fits = len(b)
		}
		s = s[n:]
	}
	return string(b)
}
