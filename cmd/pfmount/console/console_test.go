package console

import (
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestSafeOutput: what foreign text says reaches a terminal neither as a control
// nor as a change of direction, in the message or in an attribute.
func TestSafeOutput(t *testing.T) {
	t.Parallel()
	for _, foreign := range []string{"\x1b[2J", "a\nb", "\u009b2J", "\x9b2J", "\u202eexe.fdp"} {
		var b strings.Builder
		slog.New(NewHandler(&b, slog.LevelWarn)).Warn("it says "+foreign, "name", foreign)
		line := strings.TrimSuffix(b.String(), "\n")
		if strings.ContainsAny(line, "\n\x1b\u009b\u202e") || !utf8.ValidString(line) {
			t.Errorf("%q is shown as %q", foreign, line)
		}
	}
}
