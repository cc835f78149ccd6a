package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// trees are folders to capture, by what is odd about them.
var trees = map[string]func(b *builder){
	"names": func(b *builder) {
		for i, name := range []string{"a\xff\xfeb", "trunc\xe2\x82x", "sur\xed\xa0\x80",
			"over\xf8\x88z\xc0\xafw\xf0\x9f\x98",
			"\U0001f600", "\ufffd", "é", "new\nline", "quote\"<&>\x01\x7f\u2028", " ", "-rf", "*", strings.Repeat("n", 255), "foo/bar", "foo-bar", "foo.c", "d\xff/in"} {
			b.file(name, fmt.Sprint("content ", i))
		}
		b.link("link\xff", "bad\xfft")
	},
	"modes": func(b *builder) {
		for _, mode := range []uint32{0o000, 0o400, 0o444, 0o600, 0o644, 0o666, 0o755, 0o777,
			0o1644, 0o2755, 0o4755, 0o6755} {
			b.file(fmt.Sprintf("f%04o", mode), fmt.Sprint(mode))
			b.chmod(fmt.Sprintf("f%04o", mode), mode)
		}
		for _, mode := range []uint32{0o700, 0o755, 0o1777, 0o2750} {
			b.dir(fmt.Sprintf("d%04o", mode))
			b.chmod(fmt.Sprintf("d%04o", mode), mode)
		}
	},
	"shapes": func(b *builder) {
		b.dir("empty")
		b.dir("empty2/sub/subsub")
		b.file("nothing", "")
		b.file("same", "x")
		b.file("again", "x")
		b.file("big", strings.Repeat("0123456789abcdef", 200_000))
		b.link("rel", "empty2/sub")
		b.link("abs", "/etc/hostname")
		b.link("dangling", "nowhere")
		b.file(strings.Repeat("deep/", 40)+"leaf", "bottom")
	},
	"bare": func(*builder) {},
	"many": func(b *builder) {
		for i := range 1500 {
			b.file(fmt.Sprintf("dir%02d/file%04d.txt", i%50, i), strings.Repeat(fmt.Sprintln("line", i), 10))
		}
	},
}

// recorded is what becomes of the bytes in names that are not UTF-8: as Unicode has it, one U+FFFD for each
// maximal part of a sequence.
var recorded = strings.NewReplacer("\xe2\x82x", "?x", "\xed\xa0\x80", "???", "\xf8\x88", "??",
	"\xc0\xaf", "??", "\xf0\x9f\x98\x80", "\U0001f600",
	"\xf0\x9f\x98", "?", "\xff", "?", "\xfe", "?")

func record(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(recorded.Replace(strings.ReplaceAll(s, "?",
		"\x00")), "?", "\ufffd"), "\x00", "?")
}

// builder makes a folder.
type builder struct {
	t    *testing.T
	root string
}

// build makes one of the trees.
func (p *pair) build(name string) string {
	p.t.Helper()
	b := &builder{p.t, p.MakeDir("src-" + name)}
	trees[name](b)
	return b.root
}

func (b *builder) path(name string) string { return b.root + "/" + name }

func (b *builder) dir(name string) {
	b.t.Helper()
	if err := os.MkdirAll(b.path(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) file(name, content string) {
	b.t.Helper()
	if dir, _ := filepath.Split(name); dir != "" {
		b.dir(dir)
	}
	if err := os.WriteFile(b.path(name), []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) link(name, to string) {
	b.t.Helper()
	if err := os.Symlink(to, b.path(name)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) chmod(name string, mode uint32) {
	b.t.Helper()
	if err := unix.Chmod(b.path(name), mode); err != nil {
		b.t.Fatal(err)
	}
}

// want is what must be found where the folder dir was captured. setID says that set-id bits are
// kept, as pf's checkout does; a mount shows none.
func want(t *testing.T, dir string, setID bool) []imgbuild.Want {
	t.Helper()
	var list []imgbuild.Want
	for _, n := range walk(t, dir) {
		w := imgbuild.Want{Path: record(n.Path), Kind: n.Kind, Size: n.Size, SHA256: n.SHA256,
			Target: record(n.Target)}
		if n.Kind != "symlink" {
			if !setID {
				n.Mode &^= unix.S_ISUID | unix.S_ISGID
			}
			w.Mode = fmt.Sprintf("%04o", n.Mode)
		}
		list = append(list, w)
	}
	return list
}

// walk lists a folder without the file that pf's checkout leaves in it.
func walk(t *testing.T, dir string) []harness.Node {
	t.Helper()
	nodes, err := harness.Walk(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(nodes, func(n harness.Node) bool { return n.Path == ".pfcid" })
}

// restored fails the test unless pf restored exactly what was captured.
func restored(t *testing.T, src, got string) {
	t.Helper()
	if diff := harness.Diff(walk(t, got), want(t, src, true)); len(diff) > 0 {
		t.Errorf("pf's checkout differs in %d places:\n%s", len(diff),
			strings.Join(diff[:min(20, len(diff))], "\n"))
	}
}

// mounted mounts an image, compares its tree with the folder captured, and unmounts it.
func (p *pair) mounted(src, ref string) {
	p.t.Helper()
	m := p.Mount(ref)
	m.Compare("world/fs", want(p.t, src, false))
	m.Unmount()
}
