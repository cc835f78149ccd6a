package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// numbers reads a line of whole numbers, as stat and du print them.
func numbers(t *testing.T, text string) []int64 {
	t.Helper()
	var list []int64
	for _, f := range strings.Fields(text) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatalf("no number in %q: %v", text, err)
		}
		list = append(list, n)
	}
	return list
}

// silent fails the test when the registry was asked for anything since the last look.
func silent(t *testing.T, srv *faultreg.Server, when string) {
	t.Helper()
	for _, x := range srv.Log() {
		t.Errorf("%s: %s %s was asked for", when, x.Method, x.Path)
	}
	srv.Reset()
}

// TestBlocks: blocks of files, du, statfs and df, none of which asks the registry.
func TestBlocks(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		sizes := []int64{0, 1, 511, 513, 5_000_000}
		var spec imgbuild.Spec
		var total, blocks int64
		for _, n := range sizes {
			spec.Entries = append(spec.Entries,
				imgbuild.File(fmt.Sprint("s", n), "0644", imgbuild.Pattern{Len: n}))
			total, blocks = total+n, blocks+(n+511)/512
		}
		ref := e.Push(harness.Build(t, spec))
		m := e.Mount(ref)
		e.Registry().Reset()
		for _, n := range sizes {
			got := numbers(t, e.Sh(`stat -c '%s %b' "$1"`,
				m.Path(fmt.Sprint("world/fs/s", n))).Want(t, 0).Stdout)
			if got[0] != n || got[1] != (n+511)/512 {
				t.Errorf("file of %d bytes: size and blocks %v", n, got)
			}
		}
		// A folder of its own counts for at most a block of the file system.
		apparent := numbers(t, e.Sh(`du -s --apparent-size -B1 "$1" | cut -f1`,
			m.Path("world/fs")).Want(t, 0).Stdout)[0]
		if apparent < total || apparent > total+4096 {
			t.Errorf("du --apparent-size: %d, want %d and a folder", apparent, total)
		}
		used := numbers(t, e.Sh(`du -s -B1 "$1" | cut -f1`, m.Path("world/fs")).Want(t, 0).Stdout)[0]
		if used < blocks*512 || used > blocks*512+4096 {
			t.Errorf("du: %d, want %d and a folder", used, blocks*512)
		}
		fs := numbers(t, e.Sh(`stat -f -c '%b %f %a %s' "$1"`, m.Dir).Want(t, 0).Stdout)
		if fs[0]*fs[3] < total || fs[1] != 0 || fs[2] != 0 {
			t.Errorf("statfs: total, free, available, block size %v, want at least %d bytes and nothing free", fs, total)
		}
		e.Sh(`df "$1" && df -i "$1"`, m.Dir).Want(t, 0)
		silent(t, e.Registry(), "stat, du and df")
	})
}

// TestLinkCounts: sizes of symlinks, link counts, and a File::Find that misses nothing.
func TestLinkCounts(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		m := e.Mount(e.Push(harness.Fixture(t, "basic")))
		nodes := m.Tree("", false)
		subdirs, links := map[string]uint64{}, 0
		for _, n := range nodes {
			if n.Kind == "dir" {
				parent := ""
				if i := strings.LastIndexByte(n.Path, '/'); i >= 0 {
					parent = n.Path[:i]
				}
				subdirs[parent]++
			}
		}
		for _, n := range nodes {
			switch n.Kind {
			case "file":
				if n.Stat.Nlink != 1 {
					t.Errorf("file %q: link count %d", n.Path, n.Stat.Nlink)
				}
			case "dir":
				if n.Stat.Nlink != 1 && n.Stat.Nlink != 2+subdirs[n.Path] {
					t.Errorf("folder %q: link count %d, it has %d subfolders", n.Path, n.Stat.Nlink,
						subdirs[n.Path])
				}
			case "symlink":
				links++
				if n.Size != int64(len(n.Target)) {
					t.Errorf("symlink %q: size %d, target %q", n.Path, n.Size, n.Target)
				}
			}
		}
		if links == 0 {
			t.Error("no symlink was looked at")
		}
		found := e.Sh(`perl -MFile::Find -e 'find(sub{print "$File::Find::name\0"},$ARGV[0])' "$1" | tr -cd '\0' | wc -c
find "$1" -print0 | tr -cd '\0' | wc -c`, m.Dir).Want(t, 0)
		if n := numbers(t, found.Stdout); n[0] != n[1] || n[0] != int64(len(nodes)+1) {
			t.Errorf("File::Find and find see %v names, want %d", n, len(nodes)+1)
		}
	})
}

// TestInodes: inode numbers are unique and the same in every view, after the kernel forgot them,
// and at the next mount.
func TestInodes(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		ref := e.Push(harness.Fixture(t, "basic"))
		list := func(m *harness.Mount) string {
			return e.Sh(`cd "$1" && find . -printf '%i %p\0' | LC_ALL=C sort -z`, m.Dir).Want(t, 0).Stdout
		}
		m := e.Mount(ref)
		first := list(m)
		harness.DropCaches(t)
		if again := list(m); again != first {
			t.Error("other inode numbers after the kernel forgot them")
		}
		seen := map[string]string{}
		for _, line := range strings.Split(strings.TrimSuffix(first, "\x00"), "\x00") {
			ino, path, _ := strings.Cut(line, " ")
			if seen[ino] != "" {
				t.Errorf("%q and %q have inode number %s", seen[ino], path, ino)
			}
			seen[ino] = path
		}
		e.Command("env", "python3", "-c", `
import os, sys
n = 0
for d, _, _ in os.walk(sys.argv[1]):
    for x in os.scandir(d):
        n += 1
        assert x.inode() == os.lstat(x.path).st_ino, x.path
assert n > 100, n
`, m.Dir).Wait(harness.Limit).Want(t, 0)
		if r := e.Sh(`tar cf /dev/null -C "$1" . 2>&1`, m.Dir).Want(t, 0); r.Stdout != "" {
			t.Errorf("tar complains: %s", r.Stdout)
		}
		m.Unmount()
		if again := list(e.Mount(ref)); again != first {
			t.Error("other inode numbers at the next mount")
		}
	})
}

// TestTimes: the time stamps are created_at to the nanosecond, whatever the time zone, and a copy
// needs no update.
func TestTimes(t *testing.T) {
	t.Parallel()
	for name, created := range map[string]string{
		"now": imgbuild.DefaultCreated, "before 1970": "1969-07-20T20:17:40.5Z",
		"after 2038": "2106-02-07T06:28:16.999999999Z", "zone": "2026-05-05T14:11:00.25+09:30",
	} {
		t.Run(name, func(t *testing.T) {
			harness.Once(t, func(t *testing.T, e *harness.Env) {
				e.Set("TZ", "Pacific/Auckland")
				want, err := time.Parse(time.RFC3339Nano, created)
				if err != nil {
					t.Fatal(err)
				}
				ref := e.Push(harness.Build(t, imgbuild.Spec{Created: created, Entries: []imgbuild.Entry{
					imgbuild.Dir("d", "0755"), imgbuild.File("d/f", "0644", imgbuild.Text("x")),
					imgbuild.Symlink("l", "d/f"),
				}}))
				m := e.Mount(ref)
				for _, n := range m.Tree("", false) {
					for what, ts := range map[string]unix.Timespec{"mtime": n.Stat.Mtim,
						"ctime": n.Stat.Ctim} {
						if got := time.Unix(ts.Unix()); !got.Equal(want) {
							t.Errorf("%s of %s is %v, want %v", what, n.Path, got.UTC(), want.UTC())
						}
					}
				}
				if name != "now" {
					return // the folder that a copy goes to may not know such times
				}
				out := e.MakeDir("out")
				r := e.Sh(`cp -a "$1"/. "$2" && rsync -ain "$1"/ "$2"/`, m.Path("world/fs"), out).Want(t, 0)
				if r.Stdout != "" {
					t.Errorf("rsync would copy again: %s", r.Stdout)
				}
			})
		})
	}
}
