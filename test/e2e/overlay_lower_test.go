package e2e

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// overlaid mounts an overlay with a lower folder and gives the merged and the upper folder.
func overlaid(t *testing.T, e *harness.Env, lower string) (merged, upper string) {
	t.Helper()
	upper, work, merged := e.MakeDir("upper"), e.MakeDir("work"), e.MakeDir("merged")
	data := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", merged, "overlay", 0, data); err != nil {
		t.Fatalf("overlay over %s: %v", lower, err)
	}
	return merged, upper
}

// forgetNames empties the kernel's dentry and inode caches and leaves file contents.
func forgetNames(t *testing.T) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestOverlay: an overlay over the mount is written to, and stays right when the kernel forgets.
func TestOverlay(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{"folder": nil, "subdir": {"--subdir", "world/fs"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "") // overlays need root
			spec := toolSpec()
			want, err := spec.Want()
			if err != nil {
				t.Fatal(err)
			}
			m := e.Mount(e.Push(harness.Build(t, spec)), options...)
			lower := m.Path("world/fs")
			if options != nil {
				lower = m.Dir
			}
			if err := unix.Lstat(lower+"/.wh.x", new(unix.Stat_t)); err != unix.ENOENT {
				t.Errorf("stat .wh.x: %v", err)
			}
			merged, upper := overlaid(t, e, lower)
			compareAt(t, merged, want)
			e.Sh(overlayWrites, merged, lower).Want(t, 0)
			if left, err := os.ReadDir(upper); err != nil || len(left) == 0 {
				t.Errorf("nothing went to the upper folder: %v", err)
			}
			e.Sh(`cp -a "$1"/. "$2" && diff -r --no-dereference "$1" "$2" && [ "$(tail -c 5 "$2/big")" = more ]`, merged, e.MakeDir("out")).Want(t, 0)
			for range 30 {
				r := e.Sh(`ls -lR "$1" && cat "$1"/d000*/f0001.txt`, merged).Want(t, 0)
				if r.Stderr != "" || !strings.Contains(r.Stdout, "file 61\n") {
					t.Fatalf("after the kernel forgot: %v", r)
				}
				forgetNames(t)
			}
			if err := unix.Unmount(merged, 0); err != nil {
				t.Error(err)
			}
			compareAt(t, lower, want)
			m.Unmount()
		})
	}
}

// overlayWrites changes the merged tree $1 in every way; $2 is the lower one.
const overlayWrites = `
cd "$1"
echo more >>big
cmp <(head -c 5000001 big) "$2/big"
rm one; [ ! -e one ]; [ -e "$2/one" ]
rm -r d0004; [ ! -e d0004 ]
mv bin bin2 || { cp -a bin bin2; rm -r bin; } # without redirect_dir, mv of a lower folder copies
[ "$(bin2/hello you | cut -d' ' -f1,2)" = "hello you" ]
chmod 0600 d0000/f0000.txt; [ "$(stat -c %a d0000/f0000.txt)" = 600 ]
touch -d 2001-01-01 d0000/f0001.txt
truncate -s 3 d0000/f0002.txt; [ "$(cat d0000/f0002.txt)" = fil ]
ln d0000/f0003.txt hard; ln -s big soft; mkdir new; echo x >new/f
mv d0001/f0004.txt moved; [ "$(cat moved)" = "file 24" ]
mkdir one; echo in >one/file
git init -q repo; git -C repo -c user.name=n -c user.email=n@example.org commit -q --allow-empty -m m
ls -la . d0000 >/dev/null
`

// compareAt compares a folder anywhere with what it must show.
func compareAt(t *testing.T, dir string, want []imgbuild.Want) {
	t.Helper()
	nodes, err := harness.Walk(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := harness.Diff(nodes, want); len(diff) > 0 {
		t.Errorf("%s differs:\n%s", dir, strings.Join(diff[:min(20, len(diff))], "\n"))
	}
}
