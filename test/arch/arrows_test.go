// Package arch holds the shape of the house: which package may import which,
// and how large files and functions may be.
package arch

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/pfmount/pfmount"

// arrows are the only imports allowed between packages of the product.
// ARCHITECTURE.md draws them.
var arrows = map[string][]string{
	"sign":          nil,
	"cache":         nil,
	"fetch/pfimg":   {"sign"},
	"fetch":         {"fetch/pfimg", "sign"},
	"fusefs":        {"fetch/pfimg", "fusefs/mounts"},
	"fusefs/mounts": nil,
	"fetch/ahead":   {"fetch/pfimg"},
	"fetch/capture": {"fetch/pfimg"},
	"cmd/pfmount":   {"cache", "fetch", "fetch/ahead", "fetch/capture", "fetch/pfimg", "fusefs", "fusefs/mounts", "sign"},
}

func TestArrows(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		room, ours := strings.CutPrefix(fields[0], module+"/")
		if !ours {
			t.Errorf("package %s is outside the house", fields[0])
			continue
		}
		allowed, known := arrows[room]
		if !known {
			t.Errorf("a new room %s: draw it in ARCHITECTURE.md and here", room)
			continue
		}
		seen++
		for _, imp := range fields[1:] {
			to, ours := strings.CutPrefix(imp, module+"/")
			if ours && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s: no such arrow", room, to)
			}
		}
	}
	if seen != len(arrows) {
		t.Errorf("%d of %d rooms found", seen, len(arrows))
	}
}
