package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// covered is a mount over which a tmpfs was moved that is older than it, so that the mount table
// lists the cover first.
type covered struct {
	*harness.Mount
	env  *harness.Env
	file string // in the cover
}

// cover mounts, calls before, and covers the mount.
func cover(t *testing.T, e *harness.Env, before func(m *harness.Mount)) *covered {
	t.Helper()
	base := e.Tmpfs("base", 1<<20) // private, since what lies on a shared mount cannot be moved
	root := harness.New(t, "")
	root.Sh(`mount --make-private "$1"; mkdir "$1"/m "$1"/t; chown "$2" "$1"/m
mount -t tmpfs -o size=64k,uid="$2" the-cover "$1"/t; echo mine >"$1"/t/mine`, base, fmt.Sprint(e.UID())).Want(t, 0)
	ref, dir := e.Push(harness.Fixture(t, "minimal")), base+"/m"
	e.Run(ref, dir).Want(t, 0)
	c := &covered{e.Mounted(ref, dir), e, dir + "/mine"}
	before(c.Mount)
	root.Sh(`mount --move "$1"/t "$1"/m`, base).Want(t, 0)
	return c
}

// kept fails the test unless the cover is there and whole, over a mount of ours or over none.
func (c *covered) kept(t *testing.T, ours int) {
	t.Helper()
	if data, err := os.ReadFile(c.file); err != nil || string(data) != "mine\n" {
		t.Errorf("the cover: %q, %v", data, err)
	}
	count := map[string]int{}
	for _, l := range harness.MountLines(t, c.Dir) {
		count[l.Type]++
	}
	if count["tmpfs"] != 1 || count["fuse.pfmount"] != ours {
		t.Errorf("mounts at %s: %v, want the cover over %d of ours", c.Dir, count, ours)
	}
}

// TestCovered: with another file system moved over a mount, nothing of ours takes that away,
// whatever ends or begins; the mount below can be unmounted once it is seen again.
func TestCovered(t *testing.T) {
	t.Parallel()
	live := func(*harness.Mount) {}
	dead := func(m *harness.Mount) { m.Kill9() }
	says := []string{"covered by", "the-cover (tmpfs)"}
	for name, tt := range map[string]struct {
		before func(m *harness.Mount)
		act    func(t *testing.T, c *covered)
	}{
		"umount": {live,
			func(t *testing.T, c *covered) { refused(t, c.env, 6, says, "umount", c.Dir) }},
		"umount --lazy": {live,
			func(t *testing.T, c *covered) { refused(t, c.env, 6, says, "umount", "--lazy", c.Dir) }},
		"umount of stale": {dead,
			func(t *testing.T, c *covered) { refused(t, c.env, 6, says, "umount", c.Dir) }},
		"remount": {dead,
			func(t *testing.T, c *covered) { refused(t, c.env, 6, []string{"not empty"}, c.Ref, c.Dir) }},
		"SIGTERM": {live, func(t *testing.T, c *covered) {
			c.stop(t, syscall.SIGTERM)
			if said := c.env.Logs(); !strings.Contains(said, "cannot be unmounted") ||
				!strings.Contains(said, "the-cover") {
				t.Errorf("the log:\n%s", said)
			}
		}},
		"crash": {live, func(t *testing.T, c *covered) { c.stop(t, syscall.SIGABRT) }},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				c := cover(t, e, tt.before)
				tt.act(t, c)
				c.kept(t, 1)
				harness.New(t, "").Sh(`umount "$1"`, c.Dir).Want(t, 0)
				e.Run("umount", c.Dir).Want(t, 0)
				if lines := harness.MountLines(t, c.Dir); len(lines) > 0 {
					t.Errorf("left: %v", lines)
				}
			})
		})
	}
}

// stop ends the daemon by a signal and waits for it and its guard.
func (c *covered) stop(t *testing.T, s syscall.Signal) {
	t.Helper()
	c.env.Crash() // the mount cannot be taken down, and the socket of a crash may stay
	if err := syscall.Kill(c.PID, s); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, endRoom*endBound, "the end of daemon and guard",
		func() bool { return len(harness.Pids(c.env.Bin)) == 0 })
}

// reap runs a command and waits for what it leaves in the background, too: it prints how each ended.
const reap = `
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) # PR_SET_CHILD_SUBREAPER
first = os.spawnv(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
while True:
    try: pid, status = os.wait()
    except ChildProcessError: break
    print('command' if pid == first else 'background', os.waitstatus_to_exitcode(status), flush=True)`

// TestAborted: a connection that the kernel drops while a file is open ends the process with an
// error, and the dead mount is gone. Where the mount goes with its connection, that is an end like
// any other.
func TestAborted(t *testing.T) {
	t.Parallel()
	const control = `unshare -m --propagation private sh -euc '
mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections
echo 1 >/sys/fs/fuse/connections/$1/abort' sh "$(awk -v d="$1" '$5 == d {split($3, dev, ":"); print dev[2]}' /proc/self/mountinfo)"`
	for name, tt := range map[string]struct {
		script string
		busy   bool
		code   int
		says   string
	}{
		"umount -f":       {`! umount -f "$1"`, true, 6, "dropped the connection"},
		"abort file":      {control, true, 6, "dropped the connection"},
		"abort file/idle": {control, false, 6, "dropped the connection"},
		"umount -f/idle":  {`umount -f "$1"`, false, 0, "unmounted"},
	} {
		for _, foreground := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/foreground %v", name, foreground), func(t *testing.T) {
				harness.Each(t, func(t *testing.T, e *harness.Env) {
					img := harness.Build(t, lifeSpec())
					ref, dir := e.Push(img), e.MountDir()
					argv := []string{"env", "python3", "-c", reap, e.Bin}
					if foreground {
						argv = append(argv, "-f")
					}
					p := e.Command(append(argv, ref, dir)...)
					harness.Eventually(t, harness.Limit, "the mount", func() bool {
						return strings.Contains(p.Stdout(), "command 0") ||
							strings.Contains(p.Stderr(), "msg=mounted")
					})
					u := &used{Mount: e.Mounted(ref, dir), env: e}
					if tt.busy {
						u.keep(t, `exec 3<"$1"/fast`)
						defer u.user.Kill()
					}
					harness.New(t, "").Sh(tt.script, dir).Want(t, 0)
					r := p.Wait(harness.Limit).Want(t, 0)
					who, said := "background", e.Logs()
					if foreground {
						who, said = "command", r.Stderr
					}
					if !strings.Contains(r.Stdout, fmt.Sprintf("%s %d\n", who, tt.code)) ||
						!strings.Contains(said, tt.says) {
						t.Errorf("want exit code %d of the %s and %q: %v\n%s", tt.code, who, tt.says, r, said)
					}
					if left := u.leftovers(t); len(left) > 0 {
						t.Errorf("left: %v", left)
					}
				})
			})
		}
	}
}
