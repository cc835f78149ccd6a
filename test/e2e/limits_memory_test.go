package e2e

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// mixed compresses to little at first, so that a decoder's window is full early, and then not at
// all, so that it stays in use.
type mixed struct {
	imgbuild.Pattern
	noise imgbuild.Noise
}

func (m mixed) Size() int64 { return m.Len + m.noise.Len }

func (m mixed) WriteTo(w io.Writer) (int64, error) {
	n, err := m.Pattern.WriteTo(w)
	if err != nil {
		return n, err
	}
	more, err := m.noise.WriteTo(w)
	return n + more, err
}

// hashers reads argv[1]/0 to argv[1]/n at once, each in a thread of its own and 1 MiB a call, and
// prints their SHA-256 in order.
const hashers = `
import hashlib, sys, threading
threading.stack_size(256 << 10)
n = int(sys.argv[2])
sums = [None] * n
def read(i):
    h = hashlib.sha256()
    with open('%s/%d' % (sys.argv[1], i), 'rb', buffering=0) as f:
        while b := f.read(1 << 20): h.update(b)
    sums[i] = h.hexdigest()
threads = [threading.Thread(target=read, args=(i,)) for i in range(n)]
for t in threads: t.start()
for t in threads: t.join()
print('\n'.join(map(str, sums)))
`

// Test200LargeReaders: 200 readers want 200 large blobs at once, and all downloads stall in the
// middle, each with a full window. The daemon's memory stays within what its packages state, a
// large file that is cached still reads, past the page cache, and when the registry goes on all 200
// are right.
func Test200LargeReaders(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	const readers, conns = 200, 32
	spec := imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("stored", "0644",
		imgbuild.Pattern{Seed: 1000, Len: 3 << 20})}}
	for i := range uint64(readers) {
		c := mixed{imgbuild.Pattern{Seed: i, Len: 3 << 20}, imgbuild.Noise{Seed: i, Len: 1 << 20}}
		spec.Entries = append(spec.Entries, imgbuild.File(fmt.Sprint("large/", i), "0644", c))
	}
	img := harness.Build(t, spec)
	ref, srv, stall := e.Serve(img), e.Registry(), faultreg.NewHold()
	e.Run("cat", ref, "world/fs/stored").Want(t, 0)
	m := e.Mount(ref, "--stall-timeout", "10m")
	srv.Reset()
	srv.On(faultreg.Match{Kind: faultreg.Blob}, stall.After(700_000))
	count := waiting(t, e, m)
	p := e.Command("/usr/bin/python3", "-c", hashers, m.Path("world/fs/large"), fmt.Sprint(readers))
	harness.Eventually(t, time.Minute, "the stalled downloads",
		func() bool { return stall.Waiting() == conns && count() >= readers })
	t.Logf("%d READs wait, peak %d MB", count(), harness.Peak(t, m.PID)>>20)
	if r := e.Command("timeout", "-s", "KILL", "60", "sha256sum",
		m.Path("world/fs/stored")).Wait(harness.Limit); !strings.HasPrefix("sha256:"+r.Stdout, img.Digest("world/fs/stored")) {
		t.Errorf("a cached file: %v", r)
	}
	e.Command("timeout", "-s", "KILL", "60", "ls", "-lR", m.Dir).Wait(harness.Limit).Want(t, 0)
	stall.Release()
	sums := strings.Fields(p.Wait(harness.Limit).Want(t, 0).Stdout)
	for i := range readers {
		path := fmt.Sprint("world/fs/large/", i)
		if want := img.Digest(path); len(sums) != readers || "sha256:"+sums[i] != want {
			t.Fatalf("%s: wrong content, want %s: %v", path, want, sums)
		}
		if n := srv.Count(faultreg.Match{Ref: img.WireOf(path)}); n != 1 {
			t.Errorf("%s: %d requests", path, n)
		}
	}
	if peak := srv.Peak(); peak > conns {
		t.Errorf("%d requests at once, the documented most is %d", peak, conns)
	}
	peak := harness.Peak(t, m.PID)
	t.Logf("peak memory %d MB", peak>>20)
	// 32 windows of this image (4 MiB) and buffers of 2 MiB, the cache's write buffers, 400 READs
	// of 128 KiB, and 40 MiB for what an idle mount may take; and a fifth more for what the
	// collector has not found yet.
	if most := int64(conns*(4+2)+32+50+40) << 20 * 6 / 5; peak > most {
		t.Errorf("peak memory %d bytes, want at most %d", peak, most)
	}
}
