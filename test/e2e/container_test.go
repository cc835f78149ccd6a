package e2e

import (
	"strconv"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

const readable = "ro,nosuid,nodev,relatime" // how a mount's flags read in mountinfo

// lived is a mount's whole life, for a shell: $1 is the binary, $2 the image, $3 the mount point.
const lived = `set -eu
"$1" "$2" "$3"
test -s "$3/manifest.json"
find "$3/world/fs" -type f -exec cat {} + >/dev/null
awk -v d="$3" '$5 == d {print $6}' /proc/self/mountinfo
"$1" status "$3" | grep -q process
"$1" umount "$3"
! grep -q fuse.pfmount /proc/self/mountinfo`

// TestBubblewrap: a container that was given /dev/fuse and the right to mount, and nothing else of ours.
func TestBubblewrap(t *testing.T) {
	t.Parallel()
	for name, more := range map[string][]string{"plain": nil, "processes of its own": {"--unshare-pid"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			ref, dir := e.Push(harness.Fixture(t, "basic")), e.MountDir()
			argv := append([]string{"bwrap", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc",
				"/etc", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
				"--symlink", "usr/lib64", "/lib64", "--bind", e.Dir, e.Dir, "--dev", "/dev",
				"--dev-bind", "/dev/fuse", "/dev/fuse", "--proc", "/proc",
				"--cap-add", "CAP_SYS_ADMIN"}, more...)
			r := e.Command(append(argv, "sh", "-c", lived, "sh", e.Bin, ref,
				dir)...).Wait(harness.Limit).Want(t, 0)
			if r.Stdout != readable+"\n" {
				t.Errorf("mounted %q", r.Stdout)
			}
			// Without the device, the reason is the device.
			for i, arg := range argv {
				if arg == "--dev-bind" {
					argv = append(append([]string{}, argv[:i]...), argv[i+3:]...)
					break
				}
			}
			e.Command(append(argv, e.Bin, ref, dir)...).Wait(harness.Limit).Want(t, 6, "/dev/fuse")
		})
	}
}

// TestHelperNames: a user's machine may have fusermount3 or fusermount, and in a folder that is only in PATH.
func TestHelperNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"fusermount3", "fusermount"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, harness.User)
			ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
			bin := e.Path("bin")
			e.Prefix = private(`mkdir ` + bin + ` && install -m 4755 /usr/bin/fusermount3 ` + bin +
				`/` + name + ` && ` + withoutHelper)
			e.Set("PATH", bin+":/usr/bin:/bin")
			e.Sh(`"$1" "$2" "$3"; test -s "$3/manifest.json"; "$1" umount "$3"; ! grep -q " $3 " /proc/self/mountinfo`, e.Bin, ref, dir).Want(t, 0)
		})
	}
}

// withoutHelper takes fusermount3 and fusermount away: /dev/null is no program.
const withoutHelper = `for f in /usr/bin/fusermount3 /usr/bin/fusermount; do if test -e $f; then mount --bind /dev/null $f; fi; done`

// TestUnreadableDevice: a user who may not open /dev/fuse is told so.
func TestUnreadableDevice(t *testing.T) {
	t.Parallel()
	e := harness.New(t, harness.User)
	ref := e.Push(harness.Fixture(t, "minimal"))
	e.Prefix = private(`mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5 && mknod -m 666 /dev/urandom c 1 9 && mknod -m 600 /dev/fuse c 10 229`)
	refused(t, e, 6, []string{"/dev/fuse", "permission denied"}, ref, e.MountDir())
}

// TestPropagation: a mount below a shared folder reaches a container that was there before, its end
// and its return too, and no copy in the container keeps its process alive.
func TestPropagation(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "minimal"))
	base := e.Tmpfs("shared", 1<<20)
	e.Sh(`mount --make-shared "$1" && mkdir "$1/m"`, base).Want(t, 0)
	dir := base + "/m"
	other := e.Command("unshare", "-m", "--propagation", "slave", "sh", "-ec",
		forgetOthers+`; echo ready; exec sleep infinity`, "sh", e.Dir)
	defer other.Kill()
	harness.Eventually(t, harness.Limit, "the other namespace",
		func() bool { return strings.Contains(other.Stdout(), "ready") })
	inside := func(script string) harness.Result {
		return e.Sh(`ns=$1; shift; nsenter -t "$ns" -m sh -euc '`+script+`' sh "$@"`,
			strconv.Itoa(other.Cmd.Process.Pid), dir)
	}
	for range 2 {
		e.Run(ref, dir).Want(t, 0)
		m := e.Mounted(ref, dir)
		inside(`test -s "$1/manifest.json"; grep -q " $1 ro,nosuid,nodev" /proc/self/mountinfo`).Want(t, 0)
		m.Unmount() // waits for the end of the process
		inside(`test ! -e "$1/manifest.json"; ! grep -qF " $1 " /proc/self/mountinfo`).Want(t, 0)
	}
	// A daemon that was killed: what takes its place is seen, too.
	e.Run(ref, dir).Want(t, 0)
	e.Mounted(ref, dir).Kill9()
	e.Run(ref, dir).Want(t, 0)
	inside(`test -s "$1/manifest.json"`).Want(t, 0)
	e.Mounted(ref, dir).Unmount()
}
