package safetext_test

import (
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/pfmount/pfmount/fetch/safetext"
)

const limit = 40

func TestTexts(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, clip, ascii, quote, plain string }{
		{"empty", "", "", "", `""`, ""},
		{"plain", "a b/c", "a b/c", "a b/c", `"a b/c"`, "a b/c"},
		{"quotes and backslash", `say "x\y"`, `say "x\y"`, `say "x\y"`,
			`"say \"x\\y\""`, `say "x\y"`},
		{"letters", "né 日本 😀", "né 日本 😀",
			`n\u00e9 \u65e5\u672c \U0001f600`, `"né 日本 😀"`, "né 日本 😀"},
		{"combining", "e\u0301", "e\u0301", `e\u0301`, "\"e\u0301\"", "e\u0301"},
		{"escape", "\x1b[31m", `\x1b[31m`, `\x1b[31m`, `"\x1b[31m"`, `"\x1b[31m"`},
		{"lines", "a\r\nb\tc", `a\r\nb\tc`, `a\r\nb\tc`, `"a\r\nb\tc"`, `"a\r\nb\tc"`},
		{"null and delete", "\x00\x7f", `\x00\x7f`, `\x00\x7f`, `"\x00\x7f"`, `"\x00\x7f"`},
		{"C1", "\u009b2J", `\u009b2J`, `\u009b2J`, `"\u009b2J"`, `"\u009b2J"`},
		{"C1 as a byte", "\x9b2J", `\x9b2J`, `\x9b2J`, `"\x9b2J"`, `"\x9b2J"`},
		{"bidi", "\u202efdp.exe\u2066", `\u202efdp.exe\u2066`, `\u202efdp.exe\u2066`,
			`"\u202efdp.exe\u2066"`, `"\u202efdp.exe\u2066"`},
		{"zero width", "a\u200bb\ufeff", `a\u200bb\ufeff`, `a\u200bb\ufeff`,
			`"a\u200bb\ufeff"`, `"a\u200bb\ufeff"`},
		{"line separators", "a\u2028b\u2029", `a\u2028b\u2029`, `a\u2028b\u2029`,
			`"a\u2028b\u2029"`, `"a\u2028b\u2029"`},
		{"tags", "\U000e0041", `\U000e0041`, `\U000e0041`, `"\U000e0041"`, `"\U000e0041"`},
		{"invalid UTF-8", "a\xffb\xc3", `a\xffb\xc3`, `a\xffb\xc3`, `"a\xffb\xc3"`, `"a\xffb\xc3"`},
		{"replacement character", "\ufffd", "\ufffd", `\ufffd`, "\"\ufffd\"", "\ufffd"},
		{"as long as may be", strings.Repeat("x", 40), strings.Repeat("x", 40),
			strings.Repeat("x", 40),
			`"` + strings.Repeat("x", 40) + `"`, strings.Repeat("x", 40)},
		{"too long", strings.Repeat("x", 41), strings.Repeat("x", 37) + "…",
			strings.Repeat("x", 37) + "...",
			`"` + strings.Repeat("x", 40) + `"… (41 bytes)`, strings.Repeat("x", 41)},
		{"cut between letters", "x" + strings.Repeat("é", 40), "x" + strings.Repeat("é", 18) + "…",
			"x" + strings.Repeat(`\u00e9`, 6) + "...",
			`"x` + strings.Repeat("é", 19) + `"… (81 bytes)`, "x" + strings.Repeat("é", 40)},
		{"cut between escapes", strings.Repeat("\x1b", 11), strings.Repeat(`\x1b`, 9) + "…",
			strings.Repeat(`\x1b`, 9) + "...",
			`"` + strings.Repeat(`\x1b`, 11) + `"`, `"` + strings.Repeat(`\x1b`, 11) + `"`},
	}
	for _, tt := range tests {
		for _, f := range []struct{ name, got, want string }{
			{"Clip", safetext.Clip(tt.in, limit), tt.clip},
			{"ASCII", safetext.ASCII(tt.in, limit), tt.ascii},
			{"Quote", safetext.Quote(tt.in, limit), tt.quote},
			{"Quote of bytes", safetext.Quote([]byte(tt.in), limit), tt.quote},
			{"Plain", safetext.Plain(tt.in), tt.plain},
		} {
			if f.got != f.want {
				t.Errorf("%s: %s gives %q, want %q", tt.name, f.name, f.got, f.want)
			}
		}
	}
	if got := safetext.Plain(strings.Repeat("x", 1<<20)); len(got) > 17<<10 {
		t.Errorf("Plain returns %d bytes", len(got))
	}
}

// FuzzSafe: whatever comes in, what comes out is valid, bounded, free of controls; Clip and ASCII
// change their own results no more, and a literal that was not cut can be read back.
func FuzzSafe(f *testing.F) {
	for _, s := range []string{
		"", "a\x1b[31m\n", "\u202eevil", "\x9b", "\U000e0001é\xff", `\u202e"`,
	} {
		f.Add(s, 20)
	}
	f.Fuzz(func(t *testing.T, s string, max int) {
		max = 3 + int(uint(max)%1000)
		clip, ascii := safetext.Clip(s, max), safetext.ASCII(s, max)
		quote, plain := safetext.Quote(s, max), safetext.Plain(s)
		for name, out := range map[string]string{
			"Clip": clip, "ASCII": ascii, "Quote": quote, "Plain": plain,
		} {
			if !utf8.ValidString(out) {
				t.Errorf("%s: invalid UTF-8: %q", name, out)
			}
			for _, r := range out {
				bad := unicode.In(r, unicode.C, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
				if bad || name == "ASCII" && r > 0x7e {
					t.Errorf("%s leaves %U of %q", name, r, s)
				}
			}
		}
		if len(clip) > max || len(ascii) > max || len(quote) > 10*max+40 {
			t.Errorf("too long for %d: %q %q %q", max, clip, ascii, quote)
		}
		if safetext.Clip(clip, max) != clip || safetext.ASCII(ascii, max) != ascii {
			t.Errorf("not idempotent: %q %q", clip, ascii)
		}
		if back, err := strconv.Unquote(quote); len(s) <= max && (err != nil || back != s) {
			t.Errorf("%s reads as %q, %v", quote, back, err)
		}
	})
}
