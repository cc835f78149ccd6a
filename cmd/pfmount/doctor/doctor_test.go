package doctor

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestSafe: what foreign text says reaches neither a terminal nor a bug report as a control or as a
// change of direction.
func TestSafe(t *testing.T) {
	t.Parallel()
	for _, foreign := range []string{"\x1b[2J", "a\nb", "\u009b2J", "\x9b2J", "\u202eexe.fdp"} {
		report, terminal := &Diagnosis{}, &Diagnosis{cfg: Config{Terminal: true}}
		for _, got := range []string{report.safe(foreign), terminal.safe(foreign)} {
			if strings.ContainsAny(got, "\n\x1b\u009b\u202e") || !utf8.ValidString(got) {
				t.Errorf("%q is shown as %q", foreign, got)
			}
		}
	}
	if got, want := (&Diagnosis{}).safe(`no "ö"`), `no "\u00f6"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
