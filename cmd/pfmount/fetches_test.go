package main

import (
	"testing"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// A reader raises the fetch of the blob that it waits for, whichever of the two begins first.
func TestAwait(t *testing.T) {
	f := newFetches()
	before, during, after := pfimg.Digest{1}, pfimg.Digest{2}, pfimg.Digest{3}
	early, _ := f.begin(before, sched.Background)
	f.await(before)
	f.await(during)
	late, _ := f.begin(during, sched.Background)
	f.leave(during)
	f.await(after)
	f.leave(after)
	none, _ := f.begin(after, sched.Background)
	for name, c := range map[string]struct {
		u    *sched.Priority
		want sched.Class
	}{
		"begun before":        {early, sched.Reader},
		"begun during":        {late, sched.Reader},
		"begun after the end": {none, sched.Background},
	} {
		if got := c.u.Class(); got != c.want {
			t.Errorf("%s: class %v, want %v", name, got, c.want)
		}
	}
	if n := f.waits.Load(); n != 3 || len(f.awaited) != 1 {
		t.Errorf("%d waits, %d blobs awaited; want 3 and 1", n, len(f.awaited))
	}
}
