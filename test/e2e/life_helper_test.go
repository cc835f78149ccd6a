package e2e

import (
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// TestOneHelper: a user needs one of fusermount3 and fusermount, whichever it is, to mount and to unmount.
func TestOneHelper(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"fusermount3", "fusermount"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, harness.User)
			ref, dir, bin := e.Push(harness.Fixture(t, "minimal")), e.MountDir(), e.MakeDir("bin")
			e.Set("PATH", bin+":"+systemPath)
			// The other name is hidden by /dev/null, which is no program; on Debian both are one file.
			e.Prefix = private(`chmod 755 ` + bin +
				`; cp -p "$(readlink -f /usr/bin/fusermount3)" ` + bin + `/` + name + `
for f in /usr/bin/fusermount3 /usr/bin/fusermount; do if test -e $f; then mount --bind /dev/null $f; fi; done`)
			e.Sh(`"$1" "$2" "$3" && test -s "$3"/manifest.json && "$1" umount "$3"`, e.Bin, ref,
				dir).Want(t, 0)
		})
	}
}

const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
