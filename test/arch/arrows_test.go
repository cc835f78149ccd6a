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
	"sign":             nil,
	"cache":            {"cache/disk", "cache/disk/layout"},
	"fetch/safetext":   nil,
	"fetch/sched":      nil,
	"fetch/strictjson": {"fetch/safetext"},
	"fetch/pfimg":      {"fetch/safetext", "fetch/strictjson", "sign"},
	"fetch/ref":        {"fetch/pfimg", "fetch/safetext"},
	"fetch/artifact":   {"fetch/pfimg", "fetch/safetext", "fetch/sched", "fetch/strictjson"},
	"fetch/local": {"fetch/artifact", "fetch/pfimg", "fetch/ref", "fetch/safetext",
		"fetch/strictjson"},
	"fetch": {"fetch/artifact", "fetch/local", "fetch/pfimg", "fetch/ref",
		"fetch/registry", "fetch/safetext", "fetch/sched", "sign"},
	"fusefs":        {"fetch/pfimg", "fusefs/mounts"},
	"fetch/ahead":   {"fetch/pfimg"},
	"fetch/capture": {"fetch/pfimg"},
	"cmd/pfmount": {"cache", "cache/disk", "cmd/pfmount/cmdline",
		"cmd/pfmount/console", "cmd/pfmount/daemon", "cmd/pfmount/doctor", "cmd/pfmount/environ",
		"cmd/pfmount/fault",
		"cmd/pfmount/reader", "cmd/pfmount/report", "fetch", "fetch/ahead", "fetch/artifact",
		"fetch/capture", "fetch/local", "fetch/pfimg", "fetch/prefetch", "fetch/ref",
		"fetch/registry", "fetch/safedir", "fetch/safetext", "fetch/sched", "fusefs",
		"fusefs/mounts", "sign"},
	"fetch/safedir":     nil,
	"fusefs/mounts":     {"fetch/safetext"},
	"cache/disk":        {"cache/disk/layout"},
	"cache/disk/layout": {"fetch/safedir"},
	"fetch/prefetch":    {"fetch/ahead", "fetch/pfimg", "fetch/sched"},
	"cmd/pfmount/reader": {"cache", "fetch", "fetch/artifact", "fetch/pfimg", "fetch/ref",
		"fetch/sched"},
	"cmd/pfmount/cmdline": {"cmd/pfmount/fault"},
	"cmd/pfmount/fault":   nil,
	"cmd/pfmount/environ": {"fetch/safedir"},
	"cmd/pfmount/report": {"cache/disk", "cmd/pfmount/daemon", "fetch", "fetch/local",
		"fetch/pfimg", "fetch/ref", "fetch/registry", "fetch/safetext", "sign"},
	"cmd/pfmount/console": {"fetch/safetext"},
	"cmd/pfmount/daemon": {"cmd/pfmount/console", "cmd/pfmount/fault", "fetch/pfimg", "fetch/safedir",
		"fetch/safetext", "fusefs", "fusefs/mounts"},
	"cmd/pfmount/doctor": {"cache/disk", "cmd/pfmount/console", "cmd/pfmount/daemon",
		"fetch", "fetch/pfimg", "fetch/ref", "fetch/registry", "fetch/safetext", "fusefs/mounts", "sign"},
	"fetch/registry/cred": {"fetch/ref", "fetch/safetext"},
	"fetch/registry": {"fetch/artifact", "fetch/pfimg", "fetch/ref",
		"fetch/registry/cred", "fetch/safetext", "fetch/sched"},
	"fetch/safedir/safedirtest":   nil,
	"fetch/registry/registrytest": {"fetch/artifact", "fetch/local", "fetch/pfimg", "fetch/ref"},
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
