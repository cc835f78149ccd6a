package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestGrownContent mounts images of as many blobs whose files are a hundredfold: mounting asks and
// fetches the same.
func TestGrownContent(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	srv := e.Registry()
	var requests []int
	var bytes []int64
	for _, size := range []int64{10_000, 1_000_000} {
		img := harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(5, 20, func(n int) imgbuild.Content {
			return imgbuild.Pattern{Seed: uint64(n), Len: size}
		})})
		ref := e.Push(img)
		srv.Reset()
		m := e.Mount(ref)
		requests, bytes = append(requests, len(srv.Log())), append(bytes, srv.Sent())
		m.Unmount()
	}
	if requests[1] > requests[0] {
		t.Errorf("mounting the larger image took %d requests, the smaller %d", requests[1], requests[0])
	}
	// The manifest and the tree have some digits more.
	if bytes[1] > bytes[0]+bytes[0]/20 {
		t.Errorf("mounting the larger image fetched %d bytes, the smaller %d", bytes[1], bytes[0])
	}
}

// TestIdleMemory, the aim of design: an idle daemon that has listed everything takes 40 MB and 150 B a file.
func TestIdleMemory(t *testing.T) {
	t.Parallel()
	for _, folders := range []int{100, 2000} {
		t.Run(fmt.Sprint(folders*100), func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			m := e.Mount(e.Push(harness.Build(t,
				imgbuild.Spec{Seq: imgbuild.Folders(folders, 100, imgbuild.Numbered(1000))})))
			e.Sh(`find "$1" | wc -l`, m.Dir).Want(t, 0)
			// What the walk and the mount took is given back in a while.
			limit := int64(40e6) + 150*int64(folders*101)
			var rss int64
			harness.Eventually(t, time.Minute, "memory to fall below the limit", func() bool {
				rss = harness.RSS(t, m.PID)
				return rss <= limit
			})
			t.Logf("%d bytes, limit %d", rss, limit)
		})
	}
}
