package fusefs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shape is what a reader can see of one file.
type shape struct {
	Mode    uint32
	Size    int64
	Blocks  int64
	Nlink   uint64
	Content string // or a link's target
}

// see reads everything below name, by path.
func (m *mount) see(t testing.TB, name string) map[string]shape {
	t.Helper()
	seen := make(map[string]shape)
	root := m.path(name)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if kind := d.Type(); kind.IsDir() != (st.Mode&unix.S_IFMT == unix.S_IFDIR) ||
			kind&fs.ModeSymlink != 0 != (st.Mode&unix.S_IFMT == unix.S_IFLNK) {
			return fmt.Errorf("%s: listed as %v, mode %o", p, kind, st.Mode)
		}
		s := shape{Mode: st.Mode, Size: st.Size, Blocks: st.Blocks, Nlink: uint64(st.Nlink)}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s.Content = string(b)
		case unix.S_IFLNK:
			if s.Content, err = os.Readlink(p); err != nil {
				return err
			}
		}
		rel, err := filepath.Rel(root, p)
		seen[rel] = s
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// shapes is what a reader should see of entries.
func shapes(entries []entry) map[string]shape {
	want := map[string]shape{".": {Mode: unix.S_IFDIR | 0o755, Nlink: 2}}
	for _, e := range entries {
		var mode uint32
		fmt.Sscanf(e.Mode, "%o", &mode)
		s := shape{Mode: mode &^ 0o6000, Size: int64(e.Size), Blocks: (int64(e.Size) + 511) / 512,
			Nlink: 1, Content: e.content}
		switch e.Kind {
		case "dir":
			s.Mode |= unix.S_IFDIR
			s.Nlink = 2
			up := want[path.Dir(e.Path)]
			up.Nlink++
			want[path.Dir(e.Path)] = up
		case "symlink":
			s.Mode |= unix.S_IFLNK
		default:
			s.Mode |= unix.S_IFREG
		}
		want[e.Path] = s
	}
	return want
}

func checkSame(t *testing.T, got, want map[string]shape) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[name]; !ok {
			t.Errorf("%s: missing", name)
		} else if g != want[name] {
			t.Errorf("%s:\n got %+v\nwant %+v", name, g, want[name])
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: not in the image", name)
		}
	}
}

func TestTree(t *testing.T) {
	entries := []entry{
		file("a", "hello"), file("empty", ""), file("block", strings.Repeat("x", 512)),
		file("more", strings.Repeat("x", 513)),
		file("exec", "#!/bin/sh\n").mode("0755"), file("setuid", "root").mode("4755"),
		file("none", "secret").mode("0000"),
		dir("d"), dir("d/e"), file("d/e/f", "deep"), dir("hollow").mode("0700"), dir("sticky").mode("1777"),
		link("rel", "d/e/f"), link("abs", "/etc/passwd"), link("out", "../../../up"),
		link("broken", "nowhere"),
		file("ünï", "utf-8"), file(strings.Repeat("n", 255), "long"), file("new\nline", "odd"),
	}
	m := testMount(t, newImage(t, entries...), Options{UID: 12, GID: 34})
	checkSame(t, m.see(t, "world/fs"), shapes(entries))

	for name, want := range map[string]string{
		"manifest.json.sig":    `{"algorithm":"none"}`,
		"model/base":           "base:test",
		"model/diff.json":      testDiff,
		"trace/messages.jsonl": testTrace,
		"blobs/sha256/2c/2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824": "hello",
	} {
		if got := m.read(t, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if raw, _ := m.ix.Inline(m.find(t, "manifest.json")); m.read(t, "manifest.json") != string(raw) {
		t.Error("manifest.json differs from the signed bytes")
	}
	for name := range m.see(t, ".") {
		if st := m.lstat(t, name); st.Uid != 12 || st.Gid != 34 {
			t.Errorf("%s: owner %d:%d, want 12:34", name, st.Uid, st.Gid)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, created := range []string{testEpoch, "1965-02-03T04:05:06.000000007Z",
		"2038-01-19T03:14:09.999999999Z", "2199-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"} {
		want, err := time.Parse(time.RFC3339Nano, created)
		if err != nil {
			t.Fatal(err)
		}
		m := testMount(t, newImageAt(t, created, file("a", "x"), link("l", "a")), Options{})
		for _, name := range []string{".", "world/fs", "world/fs/a", "world/fs/l", "manifest.json"} {
			st := m.lstat(t, name)
			for which, ts := range map[string]unix.Timespec{"mtime": st.Mtim, "ctime": st.Ctim,
				"atime": st.Atim} {
				if got := time.Unix(ts.Unix()); !got.Equal(want) {
					t.Errorf("%s of %s: %v, want %v", which, name, got.UTC(), created)
				}
			}
		}
	}
}

// inodes returns the inode number of everything below name; "." of the mount itself is left out
// where sub is another.
func (m *mount) inodes(t *testing.T, name string) map[string]uint64 {
	t.Helper()
	all := make(map[string]uint64)
	for rel := range m.see(t, name) {
		all[rel] = m.lstat(t, filepath.Join(name, rel)).Ino
	}
	return all
}

// TestInodes has the same numbers at every mount, whichever directory is its root, and the same in listings.
func TestInodes(t *testing.T) {
	entries := []entry{file("a", "1"), dir("d"), file("d/b", "2"), link("d/c", "b"), dir("d/e"),
		file("d/e/f", "3")}
	first := testMount(t, newImage(t, entries...), Options{})
	whole := first.inodes(t, ".")
	used := make(map[uint64]string)
	for name, ino := range whole {
		if ino == 0 || used[ino] != "" {
			t.Errorf("%s: inode %d, used by %q", name, ino, used[ino])
		}
		used[ino] = name
	}
	again := testMount(t, newImage(t, entries...), Options{})
	if got := again.inodes(t, "."); !maps.Equal(got, whole) {
		t.Errorf("another mount: %v, want %v", got, whole)
	}
	im := newImage(t, entries...)
	sub := testMount(t, im, Options{Root: im.find(t, "world/fs/d")})
	for name, ino := range sub.inodes(t, ".") {
		if want := whole[path.Join("world/fs/d", name)]; ino != want {
			t.Errorf("subdir: %s: %d, want %d", name, ino, want)
		}
	}
	for _, m := range []*mount{first, again, sub} {
		for name := range m.see(t, ".") {
			if m.lstat(t, name).Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			for _, e := range listing(t, m.path(name), 4096) {
				want := m.lstat(t, path.Join(name, e.name)).Ino
				if name == "." && e.name == ".." {
					want = m.lstat(t, ".").Ino
				}
				if e.ino != want {
					t.Errorf("%s: %s is listed with inode %d, has %d", name, e.name, e.ino, want)
				}
			}
		}
	}
}

func TestSubdir(t *testing.T) {
	entries := []entry{file("top", "above"), dir("d"), file("d/a", "below"), dir("d/e"),
		link("d/up", "../top")}
	im := newImage(t, entries...)
	m := testMount(t, im, Options{Root: im.find(t, "world/fs/d")})
	checkSame(t, m.see(t, "."), map[string]shape{
		".":  {Mode: unix.S_IFDIR | 0o755, Nlink: 3},
		"a":  {Mode: unix.S_IFREG | 0o644, Size: 5, Blocks: 1, Nlink: 1, Content: "below"},
		"e":  {Mode: unix.S_IFDIR | 0o755, Nlink: 2},
		"up": {Mode: unix.S_IFLNK | 0o777, Size: 6, Nlink: 1, Content: "../top", Blocks: 1},
	})
	for _, name := range []string{"manifest.json", "world", "d", "top"} {
		if _, err := os.Lstat(m.path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want not found", name, err)
		}
	}
	for _, r := range []string{"world/fs", "world/fs/top", "manifest.json", ""} {
		if New(im.ix, im.blobs, Options{Root: im.find(t, "world/fs/d")}).inside(im.find(t, r)) {
			t.Errorf("%q counts as inside the directory", r)
		}
	}
}

func TestStatfs(t *testing.T) {
	content := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		name   string
		im     *image
		blocks uint64
	}{
		{"small", newImage(t), 1},
		{"a MiB", newImage(t, file("a", content), file("same", content)), 257},
	} {
		m := testMount(t, test.im, Options{})
		var st unix.Statfs_t
		if err := unix.Statfs(m.dir, &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks != test.blocks || st.Bsize != 4096 || st.Frsize != 4096 || st.Bfree != 0 ||
			st.Bavail != 0 || st.Namelen != 255 {
			t.Errorf("%s: %+v, want %d blocks of 4096", test.name, st, test.blocks)
		}
		if rows := uint64(len(m.see(t, "."))); st.Files != rows || st.Ffree != 0 {
			t.Errorf("%s: %d files, %d free, want %d and 0", test.name, st.Files, st.Ffree, rows)
		}
	}
}

func TestNames(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "x")), Options{})
	for name, want := range map[string]error{
		"world/fs/none":                              unix.ENOENT,
		"world/fs/A":                                 unix.ENOENT,
		"world/fs/a/b":                               unix.ENOTDIR,
		"world/fs/" + strings.Repeat("n", 255):       unix.ENOENT,
		"world/fs/" + strings.Repeat("n", 256):       unix.ENAMETOOLONG,
		"blobs/sha256/00/" + strings.Repeat("0", 64): unix.ENOENT,
	} {
		if err := unix.Lstat(m.path(name), new(unix.Stat_t)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// TestFileHandle opens a file by a handle from an earlier mount, as NFS and overlayfs do: the
// kernel has never heard of it.
func TestFileHandle(t *testing.T) {
	entries := []entry{dir("d"), file("d/a", "by handle")}
	m := testMount(t, newImage(t, entries...), Options{})
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, m.path("world/fs/d/a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(); err != nil {
		t.Fatal(err)
	}
	im := newImage(t, entries...)
	for _, root := range []string{"", "world/fs", "model"} {
		m := testMount(t, im, Options{Root: im.find(t, root)})
		at, err := unix.Open(m.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.OpenByHandleAt(at, handle, unix.O_RDONLY)
		unix.Close(at)
		if root == "model" {
			if !errors.Is(err, unix.ESTALE) {
				t.Errorf("a file above the root: %v, want ESTALE", err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("root %q: %v", root, err)
		}
		buf := make([]byte, 20)
		if n, err := unix.Read(fd, buf); err != nil || string(buf[:n]) != "by handle" {
			t.Errorf("root %q: %q, %v", root, buf[:n], err)
		}
		unix.Close(fd)
	}
}

// TestRandomTrees compares mounted random trees with what was put in.
func TestRandomTrees(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			entries := randomTree(rand.New(rand.NewPCG(seed, 1)), 1500)
			m := testMount(t, newImage(t, entries...), Options{})
			checkSame(t, m.see(t, "world/fs"), shapes(entries))
			checkSame(t, m.see(t, "world/fs"), shapes(entries)) // from the kernel's caches
		})
	}
}

// randomTree returns n entries, directories before what is in them.
func randomTree(r *rand.Rand, n int) []entry {
	dirs, entries := []string{""}, []entry{}
	for i := range n {
		p := path.Join(dirs[r.IntN(len(dirs))], fmt.Sprintf("%c%d", 'a'+rune(r.IntN(26)), i))
		switch k := r.IntN(10); {
		case k < 2 && strings.Count(p, "/") < 40:
			dirs = append(dirs, p)
			entries = append(entries, dir(p))
		case k < 3:
			entries = append(entries, link(p, strings.Repeat("../", r.IntN(4))+"x"))
		case k < 4:
			entries = append(entries, file(p, "").mode("0600"))
		default:
			size := r.IntN(300)
			if r.IntN(20) == 0 {
				size = r.IntN(300_000)
			}
			entries = append(entries, file(p, strings.Repeat(string(rune('a'+r.IntN(26))), size)))
		}
	}
	return entries
}
