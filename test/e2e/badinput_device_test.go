package e2e

import (
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// forgetMounts detaches the tests' mounts from a new mount namespace.
const forgetMounts = `awk '$5 ~ "/pfm-[0-9]+/" {print $5}' /proc/self/mountinfo | while read -r m; do umount -l "$m" || true; done`

// forgetOthers is forgetMounts but for the mounts below the folder $1.
const forgetOthers = `awk -v own="$1/" '$5 ~ "/pfm-[0-9]+/" && index($5, own) != 1 {print $5}' /proc/self/mountinfo |
while read -r m; do umount -l "$m" || true; done`

// private runs a command in a mount namespace of its own, after a script has changed the machine there. A
// new namespace holds a copy of every mount, which would keep other tests' daemons alive after their
// umount, so the copies go first.
func private(script string) []string {
	return []string{"unshare", "-m", "--propagation", "private", "sh", "-ec",
		forgetMounts + " && " + script + ` && exec "$@"`, "sh"}
}

// TestNoFuse: a machine without FUSE, or without the helper that users need, is an error that says
// what to do.
func TestNoFuse(t *testing.T) {
	t.Parallel()
	// A /dev with what every program needs, and without fuse.
	const bare = `mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/zero c 1 5 && mknod -m 666 /dev/urandom c 1 9`
	// /dev/null is no program, so this is as good as missing.
	const noHelper = `for f in /usr/bin/fusermount3 /usr/bin/fusermount; do if test -e $f; then mount --bind /dev/null $f; fi; done`
	tests := []struct {
		name, user, script string
		says               []string
	}{
		{"no device, root", "", bare, []string{"/dev/fuse", "modprobe fuse"}},
		{"no device, user", harness.User, bare, []string{"/dev/fuse", "modprobe fuse"}},
		{"device without a driver, root", "", bare + ` && mknod -m 600 /dev/fuse c 10 9999`,
			[]string{"/dev/fuse"}},
		{"no helper, user", harness.User, noHelper, []string{"fusermount3", "fuse3"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, tt.user)
			ref := e.Push(harness.Fixture(t, "minimal"))
			e.Prefix = private(tt.script)
			refused(t, e, 6, tt.says, ref, e.MountDir())
			refused(t, e, 6, tt.says, "-f", ref, e.MountDir())
			if r := e.Run("cat", ref, "model/base").Want(t, 0); r.Stdout == "" {
				t.Error("cat needs no FUSE, and printed nothing")
			}
		})
	}
}

// TestNoHelperRoot: root needs no helper.
func TestNoHelperRoot(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
	e.Prefix = private(`for f in /usr/bin/fusermount3 /usr/bin/fusermount; do if test -e $f; then mount --bind /dev/null $f; fi; done`)
	e.Sh(`"$1" "$2" "$3" && test -s "$3"/manifest.json && "$1" umount "$3"`, e.Bin, ref, dir).Want(t, 0)
}
