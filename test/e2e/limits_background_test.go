package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// crowd reads argv[2] files below argv[1] at once, each in a thread of its own, and says how many were right.
const crowd = `
import os, sys, threading
threading.stack_size(128 << 10)
right = []
def read(n):
    want = b'%07d\n' % n * 16
    fd = os.open('%s/d%04d/f%04d.txt' % (sys.argv[1], n // 100, n % 100), os.O_RDONLY)
    if os.read(fd, 1 << 20) == want: right.append(n)
    os.close(fd)
threads = [threading.Thread(target=read, args=(n,)) for n in range(int(sys.argv[2]))]
for t in threads: t.start()
for t in threads: t.join()
print(len(right))
`

// TestManyStalled: far more READs wait for a stalled registry than the kernel sends ahead at once.
// What is cached reads, from the page cache and past it, large and small; names, attributes, links
// and listings answer; and when the registry goes on every reader gets its bytes.
func TestManyStalled(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		const readers = 700
		img := harness.Build(t, imgbuild.Spec{
			Entries: []imgbuild.Entry{
				imgbuild.File("warm", "0644", imgbuild.Text("warm\n")),
				imgbuild.File("small", "0644", imgbuild.Text("small\n")),
				imgbuild.File("large", "0644", imgbuild.Pattern{Seed: 1, Len: 3 << 20}),
				imgbuild.Symlink("link", "warm"),
			},
			Seq: imgbuild.Folders(readers/100, 100, lines(readers, 16)),
		})
		ref, srv, stall := e.Serve(img), e.Registry(), faultreg.NewHold()
		e.Run("warm", ref, "world/fs/warm", "world/fs/small", "world/fs/large").Want(t, 0)
		m := e.Mount(ref, "--stall-timeout", "10m")
		m.Read("world/fs/warm")
		srv.On(faultreg.Match{Kind: faultreg.Blob}, stall.Fault())
		count := waiting(t, e, m)
		p := e.Command("/usr/bin/python3", "-c", crowd, m.Path("world/fs"), fmt.Sprint(readers))
		harness.Eventually(t, time.Minute, "the stalled READs", func() bool { return count() >= readers })
		for script, want := range map[string]string{
			`cat "$1/world/fs/warm"`:  "warm\n",
			`cat "$1/world/fs/small"`: "small\n",
			`sha256sum <"$1/world/fs/large"`: strings.TrimPrefix(img.Digest("world/fs/large"),
				"sha256:") + "  -\n",
			`readlink "$1/world/fs/link"`:         "warm\n",
			`ls -lR "$1" | grep -c 'f00.*txt'`:    fmt.Sprintln(readers),
			`find "$1" -name "f00*" -ls | wc -l`:  fmt.Sprintln(readers),
			`stat -c %s "$1"/world/fs/*/f0001*`:   strings.Repeat("128\n", readers/100),
			`test -e "$1/absent" || stat -f "$1"`: "",
		} {
			r := e.Command("timeout", "-s", "KILL", "60", "bash", "-c", script, "bash",
				m.Dir).Wait(harness.Limit)
			if r.Code != 0 || want != "" && r.Stdout != want {
				t.Errorf("while %d READs wait: %v", count(), r)
			}
		}
		if !p.Running() {
			t.Fatalf("the readers did not wait: %v", p.Wait(time.Minute))
		}
		t.Logf("%d MB with %d READs waiting", harness.RSS(t, m.PID)>>20, count())
		stall.Release()
		if r := p.Wait(harness.Limit).Want(t, 0); r.Stdout != fmt.Sprintln(readers) {
			t.Errorf("%s of %d readers got the right bytes", r.Stdout, readers)
		}
		if peak := srv.Peak(); peak > 32 {
			t.Errorf("%d requests at once, the documented most is 32", peak)
		}
	})
}
