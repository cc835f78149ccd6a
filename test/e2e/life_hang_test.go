package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestFirstReaderKilled: fifty readers wait for one blob, and the one that began the download is killed. The
// others have the right bytes, of one download.
func TestFirstReaderKilled(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		u := lively(t, e)
		defer u.hold.Release()
		u.read(t)
		var others []*harness.Process
		for range 49 {
			others = append(others, e.Command("sha256sum", u.Path("world/fs/slow")))
		}
		for _, p := range others {
			harness.Eventually(t, time.Minute, "an open file and a wait for it", func() bool {
				pid := p.Cmd.Process.Pid
				return slices.Contains(harness.FDs(t, pid), u.Path("world/fs/slow")) &&
					harness.State(pid) != "R"
			})
		}
		u.user.Kill()
		u.hold.Release()
		for _, p := range others {
			if r := p.Wait(harness.Limit).Want(t, 0); !strings.HasPrefix(r.Stdout, u.sum) {
				t.Errorf("one of the others: %v", r)
			}
		}
		if n := e.Registry().Count(faultreg.Match{Kind: faultreg.Blob,
			Where: func(x *faultreg.Exchange) bool { return x.Bytes > 1000 }}); n != 1 {
			t.Errorf("%d downloads", n)
		}
	})
}

// TestWedgedRegistry: a registry that takes connections and never answers holds up the reads that
// need it, and nothing else: not names, attributes, cached reads, other mounts, status, or the
// unmount.
func TestWedgedRegistry(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := harness.Build(t, stalledSpec(200))
		ref := e.Push(img)
		e.Run("cat", ref, "world/fs/fast").Want(t, 0)
		m, other := e.Mount(ref, "--stall-timeout", "5m"), e.Mount(e.Push(harness.Fixture(t, "basic")))
		other.Tree("", true) // all of it is cached
		// As many at once as below: their connections stay for a while.
		e.Sh(`seq -f "$1/world/fs/slow/%03.0f" 100 139 | xargs -P 40 -n 1 cat`, m.Dir).Want(t, 0)
		base := m.Status().Goroutines
		hold := faultreg.NewHold()
		defer hold.Release()
		e.Registry().On(faultreg.Match{}, hold.Fault())
		var readers []*harness.Process
		for i := range 40 {
			readers = append(readers, e.Command("cat", m.Path(fmt.Sprintf("world/fs/slow/%03d", i))))
		}
		harness.Eventually(t, time.Minute, "a wedged registry", func() bool { return hold.Waiting() >= 32 })
		harness.DropCaches(t)
		for _, script := range []string{
			`ls -lR "$1"`, `stat "$1"/world/fs/slow/150`, `cat "$1"/world/fs/fast`, `df "$1"`,
			`find "$1" -name fast`,
			`cat "$2"/manifest.json; ls -lR "$2"`, `tar cf - -C "$2" world | wc -c`,
		} {
			e.Command("timeout", "60", "sh", "-ec", script, "sh", m.Dir,
				other.Dir).Wait(harness.Limit).Want(t, 0)
		}
		begin := time.Now()
		if s := m.Status(); s.PID != m.PID || s.Stale {
			t.Errorf("status: %+v", s)
		}
		t.Logf("status took %v", time.Since(begin))
		if r := e.Run("status", "--check", m.Dir).Want(t, 0); !strings.Contains(r.Stdout,
			"not known: "+m.Ref) || r.Took > time.Minute {
			t.Errorf("status --check of a tag whose registry does not answer: %v", r)
		}
		other.Unmount()
		for _, p := range readers {
			if !p.Running() {
				t.Fatalf("a reader did not wait: %v", p.Wait(harness.Limit))
			}
			p.Kill()
		}
		hold.Release()
		harness.Eventually(t, time.Minute, "goroutines as before",
			func() bool { return m.Status().Goroutines <= base+8 })
		begin = time.Now()
		m.Unmount()
		t.Logf("unmount took %.2f of the bound", time.Since(begin).Seconds()/endBound.Seconds())
	})
}

// storm is a library that has every program interrupted a thousand times a second, by a signal that
// it handles and that does not restart system calls.
const storm = `
#include <signal.h>
#include <string.h>
#include <sys/time.h>
static void tick(int s) { (void)s; }
__attribute__((constructor)) static void begin(void) {
	struct sigaction a;
	memset(&a, 0, sizeof a);
	a.sa_handler = tick;
	sigaction(SIGALRM, &a, 0);
	struct itimerval t = {{0, 1000}, {0, 1000}};
	setitimer(ITIMER_REAL, &t, 0);
}`

// gitSpec is an image with a git repository of some size.
func gitSpec(t *testing.T, e *harness.Env) imgbuild.Spec {
	t.Helper()
	repo := e.MakeDir("repo")
	e.Sh(`cd "$1"; git init -q; for i in $(seq 60); do mkdir -p d$((i%7)); seq $i $((i*200)) >d$((i%7))/$i; done
git add -A; git -c user.name=t -c user.email=t@example.org commit -qm all; git gc -q; rm -rf .git/hooks`, repo).Want(t, 0)
	var spec imgbuild.Spec
	err := filepath.WalkDir(repo, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == repo {
			return err
		}
		name := strings.TrimPrefix(path, repo+"/")
		if d.IsDir() {
			spec.Entries = append(spec.Entries, imgbuild.Dir(name, "0755"))
			return nil
		}
		data, err := os.ReadFile(path)
		spec.Entries = append(spec.Entries, imgbuild.File(name, "0644", imgbuild.Text(string(data))))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// TestSignalStorm: git reads a cold mount right while a timer interrupts it all the time.
func TestSignalStorm(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := harness.Build(t, gitSpec(t, e))
		source, lib := e.WriteFile("storm.c", []byte(storm), 0o644), e.Path("home/storm.so")
		e.Sh(`gcc -shared -fPIC -o "$2" "$1"`, source, lib).Want(t, 0)
		ref := e.Push(img)
		e.Registry().On(faultreg.Match{Kind: faultreg.Blob}, faultreg.Delay(20*time.Millisecond))
		m := e.Mount(ref)
		git := func(args ...string) {
			t.Helper()
			e.Command(append([]string{"timeout", "170", "env", "LD_PRELOAD=" + lib, "git", "-c",
				"safe.directory=*"}, args...)...).Wait(harness.Limit).Want(t, 0)
		}
		git("-C", m.Path("world/fs"), "status", "--short")
		git("clone", "-q", "--no-hardlinks", m.Path("world/fs"), e.Path("home/clone"))
		git("-C", m.Path("world/fs"), "fsck", "--full")
		e.Sh(`diff -r --exclude=.git "$1" "$2"`, m.Path("world/fs"), e.Path("home/clone")).Want(t, 0)
	})
}
