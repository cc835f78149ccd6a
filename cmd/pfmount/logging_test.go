package main

import (
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestSafeOutput: what foreign text says reaches neither a terminal nor a bug report as a control
// or as a change of direction, in the message or in an attribute.
func TestSafeOutput(t *testing.T) {
	t.Parallel()
	for _, foreign := range []string{"\x1b[2J", "a\nb", "\u009b2J", "\x9b2J", "\u202eexe.fdp"} {
		var b strings.Builder
		slog.New(newConsole(&b, slog.LevelWarn)).Warn("it says "+foreign, "name", foreign)
		line := strings.TrimSuffix(b.String(), "\n")
		report, terminal := &diagnosis{}, &diagnosis{terminal: true}
		for _, got := range []string{line, report.safe(foreign), terminal.safe(foreign)} {
			if strings.ContainsAny(got, "\n\x1b\u009b\u202e") || !utf8.ValidString(got) {
				t.Errorf("%q is shown as %q", foreign, got)
			}
		}
	}
	if got, want := (&diagnosis{}).safe(`no "ö"`), `no "\u00f6"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
