package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
)

// flip swaps two names without a pause: there is always something at both.
const flip = `
import ctypes, sys
libc, a, b = ctypes.CDLL(None), sys.argv[1].encode(), sys.argv[2].encode()
print('ready', flush=True)
while True: libc.renameat2(-100, a, -100, b, 2) # AT_FDCWD, RENAME_EXCHANGE`

// TestDiverted: root mounts below a folder of another user's, who swaps the mount point, or a
// folder above it, for a link or a folder with a file, all the time. The mount is on the folder
// that was checked, whatever its name is by then, or is refused; it is never on what is at its name
// instead, which would be refused by itself.
func TestDiverted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ dir, swap, link string }{
		"the mount point":   {"p/m", "p/m", "p/link"},
		"the folder above":  {"p/q/m", "p/q", "p/link"},
		"to another folder": {"p/m", "p/m", "p/other"},
	} {
		for _, foreground := range []string{"", "-f"} {
			t.Run(name+foreground, func(t *testing.T) {
				t.Parallel()
				e, user := harness.New(t, ""), harness.New(t, harness.User)
				ref, p := e.Push(harness.Fixture(t, "minimal")), user.MakeDir("p")
				if err := os.Chmod(p, 0o755); err != nil {
					t.Fatal(err)
				}
				// Where the link leads: to root's own folder, which is full.
				e.Sh(`mkdir -p "$1/m"; echo kept >"$1/kept"; echo kept >"$1/m/kept"`,
					e.Path("away")).Want(t, 0)
				user.Sh(`mkdir -p "$1"; case $2 in */link) ln -s "$3" "$2";; *) mkdir "$2"; echo x >"$2"/x;; esac`,
					user.Path(tt.dir), user.Path(tt.link), e.Path("away")).Want(t, 0)
				loop := user.Command("env", "python3", "-c", flip, user.Path(tt.swap), user.Path(tt.link))
				defer loop.Kill()
				harness.Eventually(t, harness.Limit, "the swapping",
					func() bool { return loop.Stdout() != "" })
				dir := user.Path(tt.dir)
				other := strings.Replace(dir, user.Path(tt.swap), user.Path(tt.link), 1)
				right := func(point string) bool {
					if point != dir && point != other || tt.link != "p/other" {
						return point == dir || point == other
					}
					// A mount point cannot be swapped: what is not meant shows at the other of both names.
					_, atDir := os.Stat(dir + "/x")
					_, atOther := os.Stat(other + "/x")
					return point == dir && atOther == nil || point == other && atDir == nil
				}
				for range 30 {
					diverted(t, e, right, foreground, ref, dir)
				}
				loop.Kill()
				// What stands still is mounted on as ever, once the swap has ended the right way round.
				user.Sh(`if test -h "$1" || test -e "$1"/x; then mv "$1" "$1".was; mv "$2" "$1"; fi`, user.Path(tt.swap), user.Path(tt.link)).Want(t, 0)
				e.Run(ref, dir).Want(t, 0)
				e.Run("umount", dir).Want(t, 0)
			})
		}
	}
}

// diverted tries one mount, and fails the test for any that is not where it is right.
func diverted(t *testing.T, e *harness.Env, right func(point string) bool, foreground, ref, dir string) {
	t.Helper()
	ours := func() (points []string) {
		for _, l := range harness.Mounts(t) {
			if l.Type == "fuse.pfmount" && l.Source == ref {
				points = append(points, l.Dir)
			}
		}
		return points
	}
	args := []string{ref, dir}
	if foreground != "" {
		args = []string{foreground, ref, dir}
	}
	p := e.Start(args...)
	harness.Eventually(t, harness.Limit, "an end or a mount", func() bool {
		return !p.Running() || strings.Contains(p.Stderr(), "msg=mounted")
	})
	points := ours()
	wrong := func() (point string) {
		for _, p := range ours() {
			if !right(p) {
				point = p
			}
		}
		return point
	}
	// A swap that began before the mount may end after the table was read: the next look is right then.
	if wrong() != "" {
		time.Sleep(200 * time.Millisecond)
		if point := wrong(); point != "" {
			t.Errorf("mounted on %s, asked for %s", point, dir)
		}
	}
	harness.Eventually(t, harness.Limit, "the unmount", func() bool { // by a path that is swapped, too
		for _, point := range ours() {
			unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		return len(ours()) == 0
	})
	if r := p.Wait(harness.Limit); len(points) == 0 && r.Code != 6 {
		t.Errorf("refused by %v", r)
	}
	harness.Eventually(t, harness.Limit, "the end of all processes",
		func() bool { return len(harness.Pids(e.Bin)) == 0 })
	if points := ours(); len(points) > 0 {
		t.Errorf("left: %v", points)
	}
}
