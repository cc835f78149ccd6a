package prefetch

import (
	"testing"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// TestAwait: a reader raises the download of the blob that it waits for, whichever of the two
// begins first, and none that begins later.
func TestAwait(t *testing.T) {
	t.Parallel()
	var f Inflight
	before, during, after := pfimg.Digest{1}, pfimg.Digest{2}, pfimg.Digest{3}
	early, _ := f.begin(before, sched.Background)
	defer f.Await(before)()
	end := f.Await(during)
	late, _ := f.begin(during, sched.Background)
	end()
	f.Await(after)()
	none, _ := f.begin(after, sched.Background)
	for name, c := range map[string]struct {
		p    *sched.Priority
		want sched.Class
	}{
		"begun before":        {early, sched.Reader},
		"begun during":        {late, sched.Reader},
		"begun after the end": {none, sched.Background},
	} {
		if got := c.p.Class(); got != c.want {
			t.Errorf("%s: class %v, want %v", name, got, c.want)
		}
	}
	if n := f.Waits(); n != 3 || len(f.awaited) != 1 {
		t.Errorf("%d waits, %d blobs awaited; want 3 and 1", n, len(f.awaited))
	}
}
