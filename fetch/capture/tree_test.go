package capture

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTree is the tree blob, byte by byte, as the reference tool 1.0.15 writes it.
func TestTree(t *testing.T) {
	dir := put(t, "foo/bar", "x", "foo-bar", "y", "foo.c", "", ".git/objects/aa/", "", ".git/HEAD", "ref",
		"a\xff\xfeb", "n", "a\U0001f600", "m", "z\xe2\x82x", "o", "new\nline\"\\\x01\x7f\u2028<&>", "p",
		"rel", "->foo/bar", "abs", "->/nowhere", "loop", "->loop", "link\xff", "->bad\xfft",
		"suid", "s", "st/", "", "sg/", "", "none", "q")
	for name, mode := range map[string]uint32{"suid": 0o4755, "st": 0o1777, "sg": 0o2750, "none": 0} {
		if err := unix.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		unix.Chmod(filepath.Join(dir, "none"), 0o400)
	}
	none := fmt.Sprintf("%04o", must(os.Stat(filepath.Join(dir, "none")))(t).Mode().Perm())
	folder := func(path, mode string) string {
		return fmt.Sprintf(`{"path":"%s","mode":"%s","size":0,"kind":"dir"}`, path, mode)
	}
	file := func(path, mode, content string) string {
		return fmt.Sprintf(`{"path":"%s","mode":"%s","size":%d,"kind":"file","blob":"%s"}`, path,
			mode, len(content), sum(content))
	}
	link := func(path, to string) string {
		return fmt.Sprintf(`{"path":"%s","mode":"0777","size":%d,"kind":"symlink","blob":"%s","link_target":"%s"}`, path, len(to), sum(to), to)
	}
	want := `{"kind":"fs.tree.v1","entries":[` + strings.Join([]string{
		folder(".git", "0755"), file(".git/HEAD", "0644", "ref"), folder(".git/objects", "0755"),
		folder(".git/objects/aa", "0755"),
		link("abs", "/nowhere"), file("a\U0001f600", "0644", "m"), file("a\ufffd\ufffdb", "0644", "n"),
		folder("foo", "0755"), file("foo/bar", "0644", "x"), file("foo-bar", "0644", "y"),
		file("foo.c", "0644", ""),
		link("link\ufffd", "bad\ufffdt"), link("loop", "loop"),
		file(`new\nline\"\\\u0001`+"\x7f\u2028<&>", "0644", "p"),
		file("none", none, "q"), link("rel", "foo/bar"), folder("sg", "2750"), folder("st", "1777"),
		file("suid", "4755", "s"), file("z\ufffdx", "0644", "o"),
	}, ",") + "]}"
	c := good(t, dir, Options{})
	if got := c.blob(c.m.World.FS); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r := c.report
	if r.Files != 10 || r.Dirs != 6 || r.Symlinks != 4 || r.Skipped != 0 || r.Bytes != 11+8+7+4+7 ||
		c.log != "" {
		t.Errorf("%+v, log %q", r, c.log)
	}
}

// TestSpecialFiles has what would block for ever if it were opened.
func TestSpecialFiles(t *testing.T) {
	dir := put(t, "file", "x", "sub/", "")
	if err := unix.Mkfifo(dir+"/sub/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	l := must(net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/sock"}))(t)
	defer l.Close()
	want := []string{"sub/fifo", "a FIFO", "/sock", "a socket"}
	skipped := 2
	if os.Geteuid() == 0 && unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil {
		want, skipped = append(want, "/null", "a device"), 3
	}
	c := good(t, dir, Options{})
	if c.report.Skipped != skipped || c.report.Files != 1 {
		t.Errorf("%+v", c.report)
	}
	for _, s := range want {
		if !strings.Contains(c.log, s) {
			t.Errorf("log %q does not name %q", c.log, s)
		}
	}
	if tree := c.blob(c.m.World.FS); strings.Contains(tree, "fifo") ||
		strings.Contains(tree, "sock") || strings.Contains(tree, "null") {
		t.Errorf("recorded: %s", tree)
	}
}

// TestTwins has names that are recorded alike.
func TestTwins(t *testing.T) {
	c := good(t, put(t, "a\xfe", "first", "a\xff", "last", "d\xfe/x", "1", "d\xff/y", "2"), Options{})
	if n := strings.Count(c.log, "become one path"); n != 4 {
		t.Errorf("%d warnings in %q", n, c.log)
	}
	if tree := c.blob(c.m.World.FS); strings.Index(tree, sum("first")) > strings.Index(tree, sum("last")) {
		t.Errorf("the order of the names' bytes is not kept: %s", tree)
	}
	bad(t, put(t, "d\xfe/x", "1", "d\xff", "2"), Options{}, `d\xff`, `d\xfe`, "folder")
	bad(t, put(t, "d\xfe", "1", "d\ufffd/x", "2"), Options{}, `d\xfe`, "folder")
}

func TestLimits(t *testing.T) {
	t.Parallel()
	good(t, put(t, strings.Repeat("n", 255), "x", strings.Repeat("d/", 255)+"x", "deep"), Options{})
	bad(t, put(t, strings.Repeat("\xff", 255), "x"), Options{}, `\xff`, "255")
	bad(t, put(t, strings.Repeat("d/", 256)+"x", "deep"), Options{}, "256")
	bad(t, put(t, strings.Repeat(strings.Repeat("\xff", 80)+"/", 17)+"x", "long"), Options{}, "4096")
	bad(t, put(t, "l", "->"+strings.Repeat("\xff", 2000)), Options{}, `/l"`, "4095")
}

func TestEntries(t *testing.T) {
	dir := put(t, "a/b", "x", "c", "->a")
	for most, fine := range map[int]bool{3: true, 2: false} {
		s := must(newStore(t.TempDir(), Options{}.level(), jobs()))(t)
		tr := newTree(s, Options{}.logger())
		tr.most = most
		_, err := tr.capture(t.Context(), dir)
		if (err == nil) != fine || !fine && (!errors.Is(err, ErrSource) ||
			!strings.Contains(err.Error(), dir+"/c")) {
			t.Errorf("at most %d: got %v", most, err)
		}
		s.close()
	}
}

func TestFolders(t *testing.T) {
	dir := put(t, "a", "x")
	bad(t, dir+"/a", Options{}, "no folder")
	bad(t, dir+"/b", Options{}, "/b")
	for _, into := range []string{dir, dir + "/into"} {
		if _, err := Capture(t.Context(), dir, into, Options{}); err == nil ||
			!strings.Contains(err.Error(), "into") {
			t.Errorf("into %s: got %v", into, err)
		}
	}
	if _, err := Capture(t.Context(), dir, put(t, "full", ""), Options{}); err == nil ||
		!strings.Contains(err.Error(), "empty") {
		t.Errorf("into a full folder: got %v", err)
	}
	if err := os.Symlink(dir, dir+"-link"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir + "-link")
	c := good(t, dir+"-link", Options{})
	if want := `{"kind":"env.v1","cwd":"` + dir + `","vars":{}}`; c.blob(c.m.World.Env) != want {
		t.Errorf("got %s, want %s", c.blob(c.m.World.Env), want)
	}
}
