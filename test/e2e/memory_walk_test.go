package e2e

import (
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestWalkMemory: an image of 100,000 entries mounts soon, and twenty walks, each after the kernel
// forgot everything, cost no more memory than two.
func TestWalkMemory(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "") // the kernel's caches are emptied by root
	ref := e.Push(harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(100, 999, imgbuild.Numbered(100))}))
	dir := e.MountDir()
	r := e.Run(ref, dir).Want(t, 0)
	if r.Took > time.Minute {
		t.Errorf("the mount took %v", r.Took)
	}
	m := e.Mounted(ref, dir)
	// The garbage collector's moment moves single readings, so the highest of the first walks stands against
	// the lowest of the last ones.
	var first, last int64
	for walk := 1; walk <= 20; walk++ {
		if n := numbers(t, e.Sh(`find "$1" -printf '%s\n' | wc -l`, m.Path("world/fs")).Want(t,
			0).Stdout)[0]; n != 100_001 {
			t.Fatalf("walk %d saw %d names", walk, n)
		}
		forgetNames(t)
		rss := harness.RSS(t, m.PID)
		if walk >= 2 && walk <= 4 {
			first = max(first, rss)
		}
		if walk == 18 || walk > 18 && rss < last {
			last = rss
		}
	}
	t.Logf("mount %v; memory after walks 2 to 4: %d MB, after 18 to 20: %d MB, peak %d MB",
		r.Took.Round(time.Millisecond), first>>20, last>>20, harness.Peak(t, m.PID)>>20)
	if last > first+first/10 {
		t.Errorf("memory grew from %d to %d bytes", first, last)
	}
	if peak := harness.Peak(t, m.PID); peak > 300<<20 {
		t.Errorf("peak of %d bytes", peak)
	}
}
