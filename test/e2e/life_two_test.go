package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestTwoMounts: one image mounted twice shares what is fetched, and each mount ends for itself.
func TestTwoMounts(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		img := harness.Fixture(t, "basic")
		ref := e.Push(img)
		first := e.Mount(ref)
		first.Compare("world/fs", harness.Want(t, "basic"))
		e.Registry().Reset()
		second := e.Mount(ref)
		second.Compare("world/fs", harness.Want(t, "basic"))
		if n := e.Registry().Count(faultreg.Match{Kind: faultreg.Blob}); n > 0 {
			t.Errorf("%d blobs fetched again", n)
		}
		refused(t, e, 6, []string{"already mounted"}, ref, second.Dir)
		first.Unmount()
		harness.DropCaches(t)
		second.Compare("world/fs", harness.Want(t, "basic"))
		second.Unmount()
	})
}

// TestFailingNeighbour: two mounts share a cache, and the registry of one answers no more. Its
// reader waits on; what was begun ahead of that reader makes way for the readers of the other
// mount, who get all from their own registry.
func TestFailingNeighbour(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]faultreg.Fault{
		"limits": faultreg.Answer(503, "", "Retry-After", "25"),
		"stalls": faultreg.NewHold().Fault(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), project(t, 1, 50)
			ref := e.Push(img)
			other, err := faultreg.New(faultreg.Options{Backend: e.Registry().Backend()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { other.Close() })
			failing, well := e.Mount(ref, "--stall-timeout",
				"10s"), e.Mount(strings.Replace(ref, e.Registry().Host(), other.Host(), 1), "--prefetch=none")
			files := slices.DeleteFunc(img.Paths(),
				func(p string) bool { return !strings.HasPrefix(p, "world/fs/") })
			slices.Sort(files)
			for _, p := range files[:3] {
				failing.Read(p) // opens a window
			}
			harness.Eventually(t, time.Minute, "the end of what was fetched ahead",
				func() bool { return e.Registry().InFlight() == 0 })
			rule := e.Registry().On(faultreg.Match{Kind: faultreg.Blob}, fault)
			before := e.Registry().Gets(faultreg.Blob)
			next := slices.IndexFunc(files, func(p string) bool { return before[img.WireOf(p)] == 0 })
			reader := e.Command(append([]string{"cat"}, paths(failing, files[3:next+1])...)...)
			harness.Eventually(t, time.Minute, "a failing request", func() bool { return rule.Hits() > 1 })
			for i, p := range files {
				if i != next { // which the waiting reader itself asked for
					if got := harness.SHA256(well.Read(p)); got != img.Digest(p)[7:] {
						t.Errorf("%s: digest %s", p, got)
					}
				}
			}
			if name == "limits" && !reader.Running() {
				t.Errorf("the reader of the failing link ended first: %v", reader.Wait(harness.Limit))
			}
			reader.Kill()
			reader.Wait(harness.Limit)
			failing.Unmount()
			well.Unmount()
		})
	}
}

// paths are names in a mount.
func paths(m *harness.Mount, names []string) (list []string) {
	for _, name := range names {
		list = append(list, m.Path(name))
	}
	return list
}

// TestMountsInMounts: a mount on a folder of another file system that is mounted itself, also of
// one of ours: the inner one keeps the outer one busy, and is told as the holder.
func TestMountsInMounts(t *testing.T) {
	t.Parallel()
	t.Run("in tmpfs", func(t *testing.T) {
		harness.Each(t, func(t *testing.T, e *harness.Env) {
			ref := e.Push(harness.Fixture(t, "minimal"))
			e.Tmpfs("outer", 1<<20)
			dir := e.MakeDir("outer/in")
			e.Run(ref, dir).Want(t, 0)
			m := e.Mounted(ref, dir)
			m.Compare("world/fs", harness.Want(t, "minimal"))
			m.Unmount()
		})
	})
	outerSpec := imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.Dir("empty", "0755"),
		imgbuild.File("a", "0644", imgbuild.Text("a"))}}
	t.Run("in ours, as root", func(t *testing.T) {
		t.Parallel()
		e := harness.New(t, "")
		outer, ref := e.Mount(e.Push(harness.Build(t, outerSpec))), e.Push(harness.Fixture(t, "minimal"))
		dir := outer.Path("world/fs/empty")
		e.Run(ref, dir).Want(t, 0)
		inner := e.Mounted(ref, dir)
		inner.Compare("world/fs", harness.Want(t, "minimal"))
		e.Run("umount", outer.Dir).Want(t, 6, "in use by the mount "+dir)
		inner.Unmount()
		outer.Unmount()
		// The outer one ends by a signal, and takes the inner one along.
		outer = e.Mount(outer.Ref)
		dir = outer.Path("world/fs/empty")
		e.Run(ref, dir).Want(t, 0)
		inner = e.Mounted(ref, dir)
		syscall.Kill(outer.PID, syscall.SIGTERM)
		outer.Gone()
		inner.Gone()
	})
	t.Run("in ours, as a user", func(t *testing.T) {
		t.Parallel()
		e := harness.New(t, harness.User)
		outer := e.Mount(e.Push(harness.Build(t, outerSpec)))
		refused(t, e, 6, []string{"permission denied"}, e.Push(harness.Fixture(t, "minimal")),
			outer.Path("world/fs/empty"))
		outer.Unmount()
	})
}

// statusOf is what status --json says of the mounts below a folder.
func statusOf(t *testing.T, e *harness.Env, below string) map[string]harness.Status {
	t.Helper()
	r := e.Run("status", "--json").Want(t, 0)
	var all struct{ Mounts []harness.Status }
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	list := map[string]harness.Status{}
	for _, s := range all.Mounts {
		if strings.HasPrefix(s.Mountpoint, below+"/") {
			list[s.Mountpoint] = s
		}
	}
	return list
}

// TestFiftyMounts: fifty images are mounted at once, each is right, status lists them all, and all end.
func TestFiftyMounts(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		const n = 50
		refs, dirs := make([]string, n), make([]string, n)
		for i := range n {
			refs[i] = e.Push(harness.Build(t,
				imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("f", "0644",
					imgbuild.Text(fmt.Sprint(i)))}}))
			dirs[i] = e.MountDir()
		}
		var wg sync.WaitGroup
		gate := make(chan struct{}, 10)
		for i := range n {
			wg.Go(func() {
				gate <- struct{}{}
				defer func() { <-gate }()
				if r := e.Run(refs[i], dirs[i]); r.Code != 0 {
					t.Errorf("mount %d: %v", i, r)
				}
			})
		}
		wg.Wait()
		e.Sh(`i=0; for d; do test "$(cat "$d"/world/fs/f)" = $i; i=$((i+1)); done`, dirs...).Want(t, 0)
		status := statusOf(t, e, e.Dir)
		pids := map[int]bool{}
		for i := range n {
			s := status[dirs[i]]
			if s.Image != refs[i] || s.PID == 0 || s.Stale {
				t.Errorf("status of mount %d: %+v", i, s)
			}
			pids[s.PID] = true
		}
		if len(pids) != n || len(status) != n {
			t.Errorf("%d processes, %d mounts in status", len(pids), len(status))
		}
		e.Command(append([]string{"sh", "-ec", `bin=$1; shift; for d; do "$bin" umount "$d"; done`,
			"sh", e.Bin}, dirs...)...).Wait(harness.Limit).Want(t, 0)
		harness.Eventually(t, time.Minute, "the end of all",
			func() bool { return len(harness.Pids(e.Bin)) == 0 })
	})
}

// TestStatusOfOthers: root is told the state of a user's mount as the user is, alive and stale, and
// can end both; the user sees of root's only that it is there.
func TestStatusOfOthers(t *testing.T) {
	t.Parallel()
	root, user := harness.New(t, ""), harness.New(t, harness.User)
	theirs, ours := user.Mount(user.Push(harness.Fixture(t,
		"minimal"))), root.Mount(root.Push(harness.Fixture(t, "basic")))
	s := statusOf(t, root, user.Dir)[theirs.Dir]
	if s.PID != theirs.PID || s.Image != theirs.Ref || s.ManifestDigest == "" || s.Stale {
		t.Errorf("root is told of the user's mount %+v", s)
	}
	s = statusOf(t, user, root.Dir)[ours.Dir]
	if s.PID != 0 || s.Image != ours.Ref || s.Stale || len(s.LastErrors) != 1 {
		t.Errorf("the user is told of root's mount %+v", s)
	}
	root.Run("umount", theirs.Dir).Want(t, 0)
	theirs.Gone()
	theirs = user.Mount(theirs.Ref)
	holder := user.Command("sh", "-c", `cd "$1"; echo ready; exec sleep 600`, "sh", theirs.Dir)
	defer holder.Kill()
	harness.Eventually(t, time.Minute, "the holder", func() bool { return holder.Stdout() != "" })
	theirs.Kill9()
	if s := statusOf(t, root, user.Dir)[theirs.Dir]; !s.Stale {
		t.Errorf("root is told of the user's stale mount %+v", s)
	}
	root.Run("umount", theirs.Dir).Want(t, 0)
	if lines := harness.MountLines(t, theirs.Dir); len(lines) > 0 {
		t.Errorf("left: %v", lines)
	}
}

// elsewhere starts a process in a mount namespace of its own with a propagation, which has of the
// tests' mounts those of e alone; end ends both.
func elsewhere(t *testing.T, e *harness.Env, propagation string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "--propagation", propagation, "sh", "-c",
		forgetOthers+"; echo ready; exec sleep 600", "sh", e.Dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(end)
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, end
}

// TestCopiedMount: a container that copied the mount goes on reading after the unmount outside,
// which says so; the process ends with the container.
func TestCopiedMount(t *testing.T) {
	t.Parallel()
	for _, script := range []string{`"$1" umount "$2"`, `umount -l "$2"`} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "") // namespaces need root
			img := harness.Build(t, lifeSpec())
			m := e.Mount(e.Push(img))
			pid, end := elsewhere(t, e, "private")
			r := e.Sh(script, e.Bin, m.Dir).Want(t, 0)
			if strings.Contains(script, "$1") && !strings.Contains(r.Stderr, "mount namespace") {
				t.Errorf("umount says nothing of the copy: %v", r)
			}
			harness.Eventually(t, time.Minute, "a word in the log",
				func() bool { return strings.Contains(e.Logs(), "a copy of the mount") })
			time.Sleep(endBound + time.Second) // the process would have ended by now
			in := e.Command("nsenter", "-t", fmt.Sprint(pid), "-m", "sha256sum",
				m.Path("world/fs/slow")).Wait(harness.Limit).Want(t, 0)
			if !strings.HasPrefix(in.Stdout, strings.TrimPrefix(img.Digest("world/fs/slow"), "sha256:")) {
				t.Errorf("in the container: %v", in)
			}
			end()
			m.Gone()
		})
	}
}

// TestOverlaidMount: an overlay over the mount goes on after an unmount of the mount, also with
// files open, and the process ends with it.
func TestOverlaidMount(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Build(t, lifeSpec())
	m := e.Mount(e.Push(img))
	merged, _ := overlaid(t, e, m.Path("world/fs"))
	e.Sh(`umount "$1"`, m.Dir).Want(t, 0)
	time.Sleep(endBound + time.Second) // the process would have ended by now
	if r := e.Sh(`sha256sum "$1"/slow`, merged).Want(t, 0); !strings.HasPrefix(r.Stdout,
		strings.TrimPrefix(img.Digest("world/fs/slow"), "sha256:")) {
		t.Errorf("through the overlay: %v", r)
	}
	if err := unix.Unmount(merged, 0); err != nil {
		t.Fatal(err)
	}
	m.Gone()
}
