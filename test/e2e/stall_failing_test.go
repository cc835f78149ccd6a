package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// mapped touches every page of sys.argv[1], which is SIGBUS where a page cannot be had.
const mapped = `
import mmap, os, sys
m = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_READ)
print(m[0])
`

// TestOneBound: a read of a blob that cannot be had takes the tries of one download, although the kernel
// repeats failed reads; a read after that tries anew, and succeeds once the registry is well.
func TestOneBound(t *testing.T) {
	t.Parallel()
	faults := map[string]func() faultreg.Fault{
		"server error": func() faultreg.Fault { return faultreg.Answer(500, "broken") },
		"cut":          func() faultreg.Fault { return faultreg.Cut{Percent: 5}.Fault() },
		"wrong bytes":  func() faultreg.Fault { return faultreg.Flip(100) },
		"gone":         func() faultreg.Fault { return faultreg.Answer(404, "") },
		"stall":        func() faultreg.Fault { return faultreg.NewHold().Fault() },
	}
	readers := map[string][]string{
		"cat": {"cat"}, "mmap": {"/usr/bin/python3", "-c", mapped}, "tail": {"tail", "-c", "1000000"},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bound := oneFill(t, fault())
			if bound < 1 || bound > 5 {
				t.Errorf("one download makes %d requests", bound)
			}
			for reader, argv := range readers {
				t.Run(reader, func(t *testing.T) {
					harness.Once(t, func(t *testing.T, e *harness.Env) { failingRead(t, e, fault(), argv, bound) })
				})
			}
		})
	}
}

// failingImage has one file that takes many READs.
func failingImage(t *testing.T) *imgbuild.Image {
	t.Helper()
	return harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("f", "0644",
		imgbuild.Noise{Seed: 1, Len: 2 << 20})}})
}

// oneFill counts the requests of one failed download, without a mount.
func oneFill(t *testing.T, fault faultreg.Fault) int {
	t.Helper()
	e, img := harness.New(t, ""), failingImage(t)
	ref := e.Push(img)
	rule := e.Registry().On(faultreg.Match{Ref: img.WireOf("world/fs/f")}, fault)
	if r := e.Run("cat", "--stall-timeout", "3s", ref, "world/fs/f"); r.Code != 4 && r.Code != 5 ||
		r.Stdout != "" {
		t.Errorf("a failing blob: %v", r)
	}
	return rule.Hits()
}

// failingRead reads a failing blob in a mount.
func failingRead(t *testing.T, e *harness.Env, fault faultreg.Fault, argv []string, bound int) {
	t.Helper()
	img := failingImage(t)
	m := e.Mount(e.Push(img), "--stall-timeout", "3s")
	rule := e.Registry().On(faultreg.Match{Ref: img.WireOf("world/fs/f")}, fault)
	r := e.Command(append(slices.Clone(argv), m.Path("world/fs/f"))...).Wait(harness.Limit)
	if r.Code == 0 {
		t.Errorf("a failing blob was read: %v", r)
	}
	if strings.Contains(strings.Join(argv, " "), "mmap") && r.Signal != syscall.SIGBUS {
		t.Errorf("mmap of a failing blob: %v, want SIGBUS", r)
	}
	if n := rule.Hits(); n != bound {
		t.Errorf("%d requests, one download makes %d", n, bound)
	}
	// Of reads that fail at once one writes the line, and another may be answered before.
	harness.Eventually(t, time.Minute, "a log line with path and digest", func() bool {
		return strings.Contains(e.Logs(), img.Digest("world/fs/f")) &&
			strings.Contains(e.Logs(), "path=world/fs/f ")
	})
	if errs := m.Status().LastErrors; len(errs) == 0 || len(errs) > 20 {
		t.Errorf("status tells %d errors", len(errs))
	}
	rule.Off()
	harness.Eventually(t, time.Minute, "a read that tries again", func() bool {
		data, err := m.ReadErr("world/fs/f")
		return err == nil && harness.SHA256(data) == img.Digest("world/fs/f")[7:]
	})
}
