package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// lines is the content of a file of the images below: its number modulo distinct, again and again.
// holder knows it.
func lines(distinct, repeat int) func(n int) imgbuild.Content {
	return func(n int) imgbuild.Content {
		return imgbuild.Text(strings.Repeat(fmt.Sprintf("%07d\n", n%distinct), repeat))
	}
}

// holder opens files number argv[2] to argv[3] below argv[1], 100 a folder, keeps them open, and
// reads one byte of each. When the file argv[6] is there it reads the rest of each; argv[4] and
// argv[5] are distinct and repeat of lines.
const holder = `
import os, resource, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
top, first, last, distinct, repeat = sys.argv[1], *map(int, sys.argv[2:6])
files = []
for n in range(first, last):
    fd = os.open('%s/d%04d/f%04d.txt' % (top, n // 100, n % 100), os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    files.append((n, fd, b'%07d\n' % (n % distinct) * repeat))
for n, fd, want in files:
    got = os.pread(fd, 1, 0)
    if got != want[:1]: sys.exit('first byte of file %d: %r' % (n, got))
print('open', flush=True)
while not os.path.exists(sys.argv[6]): time.sleep(0.02)
for n, fd, want in files:
    got = os.pread(fd, len(want), 1)
    if got != want[1:]: sys.exit('rest of file %d: %d bytes' % (n, len(got)))
print('right', flush=True)
`

// hold runs holders of files number 0 to n-1, a few thousand each, until all are open; finish lets
// them read the rest and checks that they found everything right.
func hold(t *testing.T, e *harness.Env, m *harness.Mount, n, distinct, repeat int) (finish func()) {
	t.Helper()
	const each = 15_000 // below the limit of a process
	signal := e.Path("go-on")
	var holders []*harness.Process
	for first := 0; first < n; first += each {
		holders = append(holders, e.Command("/usr/bin/python3", "-c", holder, m.Path("world/fs"),
			fmt.Sprint(first),
			fmt.Sprint(min(first+each, n)), fmt.Sprint(distinct), fmt.Sprint(repeat), signal))
	}
	for _, p := range holders {
		harness.Eventually(t, harness.Limit, "the open files",
			func() bool { return !p.Running() || p.Stdout() == "open\n" })
		if !p.Running() {
			t.Fatalf("the files could not be read: %v", p.Wait(harness.Limit))
		}
	}
	return func() {
		t.Helper()
		if err := os.WriteFile(signal, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, p := range holders {
			if r := p.Wait(harness.Limit).Want(t, 0); r.Stdout != "open\nright\n" {
				t.Errorf("%v", r)
			}
		}
	}
}

// back fails the test unless a daemon soon has no more than 10 descriptors over what it had.
func back(t *testing.T, m *harness.Mount, start int) {
	t.Helper()
	// The cache closes what was idle for 10 s.
	harness.Eventually(t, time.Minute, fmt.Sprint("back to ", start, " descriptors"), func() bool {
		return len(harness.FDs(t, m.PID)) <= start+10
	})
}

// TestFewDescriptors: a daemon that may have 256 descriptors serves 5,000 files that are open at
// once, and has as many as before when they are closed.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		const repeat = 1024 // 8 KiB each: the rest needs a READ of its own
		files := 5000
		if e.UID() != 0 {
			files = 1000 // it is the same code, and this is slow
		}
		ref := e.Serve(harness.Build(t,
			imgbuild.Spec{Seq: imgbuild.Folders(files/100, 100, lines(files, repeat))}))
		e.Prefix = []string{"prlimit", "--nofile=256"}
		m := e.Mount(ref)
		e.Prefix = nil
		m.Read("world/fs/d0000/f0000.txt")
		start := len(harness.FDs(t, m.PID))
		finish := hold(t, e, m, files, files, repeat)
		peak := len(harness.FDs(t, m.PID))
		finish()
		t.Logf("%d descriptors at the start, %d with %d files open", start, peak, files)
		back(t, m, start)
		if s := m.Status(); len(s.LastErrors) > 0 {
			t.Errorf("errors on the way: %v", s.LastErrors)
		}
	})
}

// Test100000Open: 100,000 files of a mount are open at once. They cost the daemon nothing by being
// open: it holds the blobs that were read last, within its bound, and none when they were not used
// for a while.
func Test100000Open(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	const files, distinct, repeat = 100_000, 1000, 16
	ref := e.Serve(harness.Build(t,
		imgbuild.Spec{Seq: imgbuild.Folders(files/100, 100, lines(distinct, repeat))}))
	e.Prefix = []string{"prlimit", "--nofile=1024"}
	m := e.Mount(ref)
	e.Prefix = nil
	m.Read("world/fs/d0000/f0000.txt")
	start, rss := len(harness.FDs(t, m.PID)), harness.RSS(t, m.PID)
	finish := hold(t, e, m, files, distinct, repeat)
	open, grown := len(harness.FDs(t, m.PID)), harness.RSS(t, m.PID)
	t.Logf("%d descriptors and %d MB at the start, %d and %d MB with %d files open", start, rss>>20,
		open, grown>>20, files)
	// Half of what remains of 1,024 after 32 for blobs, ten in passing, and the connections.
	if most := start + 496 + 10 + 32; open > most {
		t.Errorf("%d descriptors with %d files open, want at most %d", open, files, most)
	}
	if n := e.Registry().Count(faultreg.Match{Kind: faultreg.Blob}); n > distinct+20 {
		t.Errorf("%d requests for %d blobs", n, distinct)
	}
	finish()
	back(t, m, start)
}

// TestTinyDescriptors: with 64 descriptors a mount serves many readers of what is not cached,
// slowly; with fewer it says at the start what it needs, and so do the other commands.
func TestTinyDescriptors(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	const files = 300
	ref := e.Serve(harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(files/100, 100, lines(files, 16))}))
	dir := e.MountDir()
	for _, limit := range []int{16, 32, 63} {
		e.Prefix = []string{"prlimit", fmt.Sprint("--nofile=", limit)}
		for _, args := range [][]string{{ref, dir}, {"-f", ref, dir},
			{"cat", ref, "world/fs/d0000/f0000.txt"}, {"warm", ref}} {
			e.Run(args...).Want(t, 1, fmt.Sprint("at most ", limit), "64 are needed", "ulimit -n")
		}
	}
	if n := e.Registry().Count(faultreg.Match{}); n > 0 {
		t.Errorf("%d requests before the refusal", n)
	}
	e.Prefix = []string{"prlimit", "--nofile=64"}
	m := e.Mount(ref)
	e.Prefix = nil
	all := `find "$1" -type f | sort | xargs -P 64 -n 1 cat | sort -u | wc -l`
	if r := e.Sh(all, m.Path("world/fs")).Want(t, 0); r.Stdout != fmt.Sprintln(files) {
		t.Errorf("%s different lines in %d files", r.Stdout, files)
	}
	t.Logf("%d descriptors after 64 readers", len(harness.FDs(t, m.PID)))
	e.Prefix = []string{"prlimit", "--nofile=64"}
	e.Run("cache", "clear").Want(t, 0)
	e.Run("warm", ref).Want(t, 0)
}
