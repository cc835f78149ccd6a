package harness

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// MountLine is one line of mountinfo (proc(5)).
type MountLine struct {
	Dir, Options, Type, Source, Super string
}

// Mounts lists this mount namespace's mounts. A table that changes while it is read may end in the
// middle of a line: it is read again.
func Mounts(t testing.TB) []MountLine {
	t.Helper()
	for try := 0; ; try++ {
		data, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		list, bad := parseMounts(string(data))
		if bad == "" {
			return list
		}
		if try == 10 {
			t.Fatalf("mountinfo: %q", bad)
		}
	}
}

// parseMounts gives the mounts of a table, or a line that is none.
func parseMounts(table string) (list []MountLine, bad string) {
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(line, " - ")
		a, b := strings.Fields(before), strings.Fields(after)
		if len(a) < 6 || len(b) < 3 || !strings.HasSuffix(line, "\n") {
			return nil, line
		}
		list = append(list, MountLine{unescape(a[4]), a[5], b[0], unescape(b[1]), b[2]})
	}
	return list, ""
}

// MountLines lists the mounts on dir, a path without symlinks.
func MountLines(t testing.TB, dir string) []MountLine {
	t.Helper()
	var list []MountLine
	for _, m := range Mounts(t) {
		if m.Dir == dir {
			list = append(list, m)
		}
	}
	return list
}

func (e *Env) mountsBelow() []MountLine {
	e.t.Helper()
	var list []MountLine
	for _, m := range Mounts(e.t) {
		if strings.HasPrefix(m.Dir, e.Dir+"/") {
			list = append(list, m)
		}
	}
	return list
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
