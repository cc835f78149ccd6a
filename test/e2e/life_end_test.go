package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// endBound is the documented time in which a mount ends, whatever began that; tests allow it
// endRoom times, since they run beside each other on small machines.
const (
	endBound = 5 * time.Second
	endRoom  = 4
)

// lifeSpec has a small file and one whose download tests stall.
func lifeSpec() imgbuild.Spec {
	return imgbuild.Spec{Entries: []imgbuild.Entry{
		imgbuild.File("fast", "0644", imgbuild.Text("fast\n")),
		imgbuild.File("slow", "0644", imgbuild.Pattern{Seed: 1, Len: 3 << 20}),
	}}
}

// used is a mount in use.
type used struct {
	*harness.Mount
	env    *harness.Env
	hold   *faultreg.Hold   // the download of world/fs/slow
	user   *harness.Process // the process that uses it; nil: none
	reader bool             // user is cat world/fs/slow
	sum    string           // of world/fs/slow
}

// lively mounts lifeSpec and has world/fs/fast cached and the download of world/fs/slow stalled.
func lively(t *testing.T, e *harness.Env) *used {
	t.Helper()
	img := harness.Build(t, lifeSpec())
	m := e.Mount(e.Push(img), "--stall-timeout", "5m")
	m.Read("world/fs/fast")
	u := &used{Mount: m, env: e, hold: faultreg.NewHold(),
		sum: strings.TrimPrefix(img.Digest("world/fs/slow"), "sha256:")}
	e.Registry().On(faultreg.Match{Ref: img.WireOf("world/fs/slow")}, u.hold.After(1000))
	return u
}

// keep starts a process that uses the mount until it is killed, by a shell script that says ready.
func (u *used) keep(t *testing.T, script string) {
	t.Helper()
	u.user = u.env.Command("sh", "-ec", script+"; echo ready; exec sleep 600", "sh", u.Path("world/fs"))
	harness.Eventually(t, time.Minute, "the mount's user",
		func() bool { return u.user.Stdout() == "ready\n" })
}

// read starts a reader and waits until its download stands still.
func (u *used) read(t *testing.T) {
	t.Helper()
	u.user, u.reader = u.env.Command("cat", u.Path("world/fs/slow")), true
	harness.Eventually(t, time.Minute, "the stalled download", func() bool { return u.hold.Waiting() == 1 })
}

// uses are the states that a mount is in when it ends.
var uses = []struct {
	name  string
	busy  bool // so that a plain unmount is refused
	begin func(t *testing.T, u *used)
}{
	{"idle", false, func(*testing.T, *used) {}},
	{"file open", true, func(t *testing.T, u *used) { u.keep(t, `exec 3<"$1"/fast`) }},
	{"cwd inside", true, func(t *testing.T, u *used) { u.keep(t, `cd "$1"`) }},
	{"reader waits", true, func(t *testing.T, u *used) { u.read(t) }},
	{"fill without reader", false, func(t *testing.T, u *used) {
		u.read(t)
		u.user.Kill()
		u.user, u.reader = nil, false
		if files, _ := filepath.Glob(u.env.CacheDir() + "/tmp/*"); len(files) == 0 {
			t.Error("no fill under way")
		}
	}},
}

// ends are the ways to end a mount, as shell scripts: $1 the process, $2 the mount point, $3 the binary.
var ends = []struct {
	name, script string
	plain        bool // refused where the mount is in use
}{
	{"TERM", `kill -TERM "$1"`, false},
	{"INT", `kill -INT "$1"`, false},
	{"TERM twice", `kill -TERM "$1"; sleep 0.5; kill -TERM "$1" 2>/dev/null || :`, false},
	{"umount", `umount "$2"`, true},
	{"fusermount3 -u", `fusermount3 -u "$2"`, true},
	{"fusermount -u", `fusermount -u "$2"`, true},
	{"pfmount umount", `"$3" umount "$2"`, true},
	{"umount -l", `umount -l "$2"`, false},
	{"fusermount3 -uz", `fusermount3 -u -z "$2"`, false},
	{"pfmount umount --lazy", `"$3" umount --lazy "$2"`, false},
}

// TestEnd: each way to end a mount, in each state it can be in. Within the bound there is no mount,
// process, socket or partial file; readers get their bytes or an error.
func TestEnd(t *testing.T) {
	t.Parallel()
	for _, end := range ends {
		for _, use := range uses {
			t.Run(end.name+"/"+use.name, func(t *testing.T) {
				harness.Each(t, func(t *testing.T, e *harness.Env) {
					u := lively(t, e)
					defer u.hold.Release()
					use.begin(t, u)
					r := e.Command("sh", "-ec", end.script, "sh", fmt.Sprint(u.PID), u.Dir,
						e.Bin).Wait(harness.Limit)
					if end.plain && use.busy {
						u.refused(t, r)
						return
					}
					r.Want(t, 0)
					u.ended(t, time.Now().Add(-r.Took))
				})
			})
		}
	}
}

// refused: a plain unmount said that the mount is busy, and left it as it was; it ends once it is
// not in use.
func (u *used) refused(t *testing.T, r harness.Result) {
	t.Helper()
	if r.Code == 0 || !strings.Contains(r.Stderr, "busy") && !strings.Contains(r.Stderr, "in use by") {
		t.Errorf("the unmount of a busy mount: %v", r)
	}
	if got := string(u.Read("world/fs/fast")); got != "fast\n" {
		t.Errorf("after it: %q", got)
	}
	if u.reader {
		u.hold.Release()
		if r := u.user.Wait(harness.Limit).Want(t, 0); harness.SHA256([]byte(r.Stdout)) != u.sum {
			t.Errorf("the reader got %d wrong bytes", len(r.Stdout))
		}
	} else {
		u.user.Kill()
	}
	u.Unmount()
}

// ended waits until nothing is left of the mount, and looks at what its user got.
func (u *used) ended(t *testing.T, begin time.Time) {
	t.Helper()
	var left []string
	for {
		if left = u.leftovers(t); len(left) == 0 {
			break
		}
		if time.Since(begin) > endRoom*endBound {
			t.Fatalf("left after %v: %v", time.Since(begin), left)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("ended after %.2f of the bound", time.Since(begin).Seconds()/endBound.Seconds())
	switch {
	case u.reader:
		r := u.user.Wait(harness.Limit)
		if r.Code != 1 || r.Stderr == "" {
			t.Errorf("the waiting reader ended by %v", r)
		}
	case u.user != nil:
		if !u.user.Running() {
			t.Errorf("the mount's user ended by itself: %v", u.user.Wait(time.Minute))
		}
		u.user.Kill()
	}
}

// leftovers names what there still is of a mount.
func (u *used) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, l := range harness.MountLines(t, u.Dir) {
		left = append(left, "mount "+l.Dir)
	}
	for _, pid := range harness.Pids(u.env.Bin) {
		left = append(left, fmt.Sprintf("process %d %q", pid, harness.Cmdline(pid)))
	}
	for _, pattern := range []string{u.env.Path("run/pfmount/*"), u.env.CacheDir() + "/tmp/*"} {
		files, _ := filepath.Glob(pattern)
		left = append(left, files...)
	}
	return left
}

// TestEndWithBytes: readers that wait when the mount is told to end get their bytes if these come in time.
func TestEndWithBytes(t *testing.T) {
	t.Parallel()
	for _, script := range []string{`kill -TERM "$1"`, `umount -l "$2"`, `fusermount3 -u -z "$2"`} {
		t.Run(strings.Fields(script)[0], func(t *testing.T) {
			harness.Once(t, func(t *testing.T, e *harness.Env) {
				u := lively(t, e)
				u.read(t)
				begin := time.Now()
				e.Sh(script, fmt.Sprint(u.PID), u.Dir).Want(t, 0)
				u.hold.Release()
				if r := u.user.Wait(harness.Limit).Want(t, 0); harness.SHA256([]byte(r.Stdout)) != u.sum {
					t.Errorf("the reader got %d wrong bytes", len(r.Stdout))
				}
				u.user, u.reader = nil, false
				u.ended(t, begin)
			})
		})
	}
}

// TestRemountAfterLazy: a mount made where another was just detached lazily keeps its socket when
// the first one ends.
func TestRemountAfterLazy(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		u := lively(t, e)
		u.keep(t, `exec 3<"$1"/fast`)
		e.Sh(`umount -l "$1"`, u.Dir).Want(t, 0)
		e.Run(u.Ref, u.Dir).Want(t, 0)
		harness.Eventually(t, endRoom*endBound, "end of the first mount",
			func() bool { return !harness.Alive(u.PID) })
		u.user.Kill()
		second := u.Status()
		if second.PID == u.PID || second.PID == 0 || second.Stale {
			t.Errorf("status of the second mount: %+v", second)
		}
		u.PID = second.PID
		u.Unmount()
	})
}

// TestLivesOn: what must not end a mount: hang-ups, closed standard files, a stop of any length.
func TestLivesOn(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		img := harness.Build(t, lifeSpec())
		ref, dir := e.Push(img), e.MountDir()
		e.Sh(`"$1" --stall-timeout 2s "$2" "$3" <&- >&- 2>&-`, e.Bin, ref, dir).Want(t, 0)
		m := e.Mounted(ref, dir)
		m.Read("world/fs/fast")
		hold := faultreg.NewHold()
		e.Registry().On(faultreg.Match{Ref: img.WireOf("world/fs/slow"), Count: 1}, hold.After(1000))
		reader := e.Command("sh", "-c", `sha256sum <"$1" || exec sha256sum <"$1"`, "sh",
			m.Path("world/fs/slow"))
		harness.Eventually(t, time.Minute, "the download", func() bool { return hold.Waiting() == 1 })
		for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGSTOP} {
			if err := syscall.Kill(m.PID, s); err != nil {
				t.Fatal(err)
			}
		}
		harness.Eventually(t, time.Minute, "the stop", func() bool { return harness.State(m.PID) == "T" })
		hold.Release()
		time.Sleep(4 * time.Second) // twice the stall time-out: the length of the stop is what is tested
		if err := syscall.Kill(m.PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if r := reader.Wait(harness.Limit).Want(t, 0); !strings.HasPrefix(r.Stdout,
			strings.TrimPrefix(img.Digest("world/fs/slow"), "sha256:")) {
			t.Errorf("read over a stop: %v", r)
		}
		m.Unmount()
	})
}

// TestForegroundHangUp: a mount in the foreground of a terminal lives on when the terminal is
// closed, and still ends by a signal.
func TestForegroundHangUp(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
		e.Command("env", "python3", "-c", `
import os, pty, sys, time
pid, master = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
while not os.path.exists(sys.argv[-1] + '/manifest.json'): time.sleep(0.02)
os.close(master)`, e.Bin, "-f", ref, dir).Wait(harness.Limit).Want(t, 0)
		m := e.Mounted(ref, dir)
		m.Compare("world/fs", harness.Want(t, "minimal"))
		if err := syscall.Kill(m.PID, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		m.Gone()
	})
}
