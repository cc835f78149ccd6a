package capture

import (
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// lossy gives text as the reference records it: each maximal part of a sequence that is not UTF-8
// becomes one U+FFFD, as the Unicode standard recommends (chapter 3.9) and as Rust's
// to_string_lossy does. Go's own conversions make one a byte, or one a run.
func lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			n = badLen(s)
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// badLen is the length of the maximal part of a sequence at the start of s, which is not UTF-8.
func badLen(s string) int {
	low, high, most := byte(0x80), byte(0xbf), 0
	switch c := s[0]; {
	case c < 0xe0 || c > 0xf4:
		return 1
	case c < 0xf0:
		most = 2
	default:
		most = 3
	}
	switch s[0] {
	case 0xe0:
		low = 0xa0
	case 0xed:
		high = 0x9f
	case 0xf0:
		low = 0x90
	case 0xf4:
		high = 0x8f
	}
	n := 1
	for n < most && n < len(s) && low <= s[n] && s[n] <= high {
		n++
		low, high = 0x80, 0xbf
	}
	return n
}

// appendString appends a JSON string as the reference writes one: only what JSON must escape is
// escaped.
func appendString(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, lossy(s))
	if err != nil {
		panic("capture: valid UTF-8 cannot be quoted: " + err.Error())
	}
	return b
}
