package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// plainFile is a file entry with the content "evil".
func plainFile(path string) imgbuild.Entry {
	return imgbuild.File(path, "0644", imgbuild.Text("evil"))
}

// TestPathsThatLeave: signed trees with one bad path each are refused at mount; the error quotes
// the path, escaped, and nothing is written anywhere. One row a kind; fetch/pfimg tests the rest.
func TestPathsThatLeave(t *testing.T) {
	t.Parallel()
	evil := fmt.Sprintf("/tmp/pfmount-evil-%d", os.Getpid())
	tests := []struct{ name, path, says string }{
		{"parent", "../x", `"../x"`},
		{"absolute", evil, `"` + evil + `"`},
		{"empty", "", `""`},
		{"NUL", "a\x00b", `"a\x00b"`},
		{"escape sequence in it", "../\x1b[31m", `"../\x1b[31m"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{plainFile("ok"),
				plainFile(tt.path)}})
			ref := e.Serve(img)
			refused(t, e, 4, []string{"world.fs", tt.says}, ref, e.MountDir())
			refused(t, e, 4, []string{"world.fs", tt.says}, "cat", ref, "world/fs/ok")
			refused(t, e, 4, []string{"world.fs", tt.says}, "verify", ref)
			if _, err := os.Lstat(evil); err == nil {
				t.Errorf("%s was made", evil)
			}
		})
	}
}

// TestFileBelowLink: a symlink that leads out, with a file below it, is no way out.
func TestFileBelowLink(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]imgbuild.Entry{
		"link first": {imgbuild.Symlink("d", "/tmp"), plainFile("d/pfmount-evil")},
		"file first": {plainFile("d/pfmount-evil"), imgbuild.Symlink("d", "/tmp")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			refused(t, e, 4, []string{"world.fs", `"d`},
				e.Serve(harness.Build(t, imgbuild.Spec{Entries: entries})), e.MountDir())
			if _, err := os.Lstat("/tmp/pfmount-evil"); err == nil {
				t.Error("a file was made through the link")
			}
		})
	}
}

// TestPlainBackslash: a backslash is an ordinary byte of a name.
func TestPlainBackslash(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	spec := imgbuild.Spec{Entries: []imgbuild.Entry{plainFile(`..\x`), plainFile(`C:\a`),
		imgbuild.Symlink("up", "../../../../..")}}
	want, err := spec.Want()
	if err != nil {
		t.Fatal(err)
	}
	e.Mount(e.Serve(harness.Build(t, spec))).Compare("world/fs", want)
}

// TestBadEntry: signed trees with an entry, or JSON around it, that the format does not allow.
func TestBadEntry(t *testing.T) {
	t.Parallel()
	const digest = `"blob":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
	size := func(n string) []imgbuild.Entry {
		return []imgbuild.Entry{{Raw: `{"path":"big","size":` + n + `,` + digest + `}`}}
	}
	raw := func(s string) []imgbuild.Entry { return []imgbuild.Entry{{Raw: s}} }
	tests := []struct {
		name    string
		entries []imgbuild.Entry
		says    string
	}{
		{"file, then folder", []imgbuild.Entry{plainFile("a"), imgbuild.Dir("a", "0755")}, `"a"`},
		{"folder, then file", []imgbuild.Entry{imgbuild.Dir("a", "0755"), plainFile("a")}, `"a"`},
		{"link, then folder", []imgbuild.Entry{imgbuild.Symlink("a", "b"), imgbuild.Dir("a", "0755")}, `"a"`},
		{"file with a file below", []imgbuild.Entry{plainFile("a"), plainFile("a/b")}, `"a/b"`},
		{"file below, then the file", []imgbuild.Entry{plainFile("a/b"), plainFile("a")}, `"a"`},
		{"file with a folder far below", []imgbuild.Entry{plainFile("a/b"),
			imgbuild.Dir("a/b/c/d", "0755")}, `"a/b/c/d"`},
		{"name of 256 bytes", []imgbuild.Entry{plainFile("d/" + strings.Repeat("n", 256))}, "255"},
		{"name of 300 bytes", []imgbuild.Entry{plainFile(strings.Repeat("ü", 150))}, "255"},
		{"path of 5,000 bytes", []imgbuild.Entry{plainFile(strings.Repeat(strings.Repeat("p",
			199)+"/", 25) + "f")}, "4096"},
		{"257 names deep", []imgbuild.Entry{plainFile(strings.Repeat("d/", 256) + "f")}, "256"},
		{"negative size", size("-1"), "-1"},
		{"size over 64 bits", size("99999999999999999999"), "99999999999999999999"},
		{"size 2^63-1", size("9223372036854775807"), "9223372036854775807"},
		{"size with exponent", size("1e9"), "1e9"},
		{"size with fraction", size("1.5"), "1.5"},
		{"size of text", size(`"4"`), "/entries/0/size"},
		{"two sizes of one blob", append(size("4"),
			imgbuild.Entry{Raw: `{"path":"other","size":5,` + digest + `}`}), "other"},
		{"no path", raw(`{"size":4,` + digest + `}`), "path is missing"},
		{"no size", raw(`{"path":"a",` + digest + `}`), "size"},
		{"no blob", raw(`{"path":"a","size":4}`), "blob"},
		{"blob in capitals", raw(`{"path":"a","size":4,"BLOB":"x"}`), "blob"},
		{"blob twice", raw(`{"path":"a","size":4,` + digest + `,` + digest + `}`), "duplicate"},
		{"path twice, escaped", raw(`{"path":"a","pat\u0068":"b","size":4,` + digest + `}`), "duplicate"},
		{"blob is no digest", raw(`{"path":"a","size":4,"blob":"sha256:xyz"}`), "xyz"},
		{"path is not UTF-8", raw("{\"path\":\"a\xff\",\"size\":4," + digest + "}"), "UTF-8"},
		{"path with half a surrogate", raw(`{"path":"a\ud800","size":4,` + digest + `}`), "world.fs"},
		{"path is a number", raw(`{"path":7,"size":4,` + digest + `}`), "/entries/0/path"},
		{"unknown kind", raw(`{"path":"a","kind":"fifo","size":0}`), "fifo"},
		{"kind in capitals", raw(`{"path":"a","kind":"Dir","size":0}`), "Dir"},
		{"link without target", raw(`{"path":"a","kind":"symlink","size":4,` + digest + `}`), "link_target"},
		{"link of NUL", raw(`{"path":"a","kind":"symlink","link_target":"\u0000"}`), "NUL"},
		{"link of 5,000 bytes", raw(`{"path":"a","kind":"symlink","link_target":"` +
			strings.Repeat("l", 5000) + `"}`), "link_target"},
		{"link of another size", raw(`{"path":"a","kind":"symlink","size":9,"link_target":"abc"}`), "9"},
		{"mode of letters", raw(`{"path":"a","mode":"rwx","size":4,` + digest + `}`), "rwx"},
		{"mode too large", raw(`{"path":"a","mode":"17777","size":4,` + digest + `}`), "17777"},
		{"mode is a number", raw(`{"path":"a","mode":420,"size":4,` + digest + `}`), "/entries/0/mode"},
		{"entry is no object", raw(`7`), "/entries/0"},
		{"entry nested", raw(`{"x":` + nested(200_000) + `}`), "nested"},
		{"name of 3 MiB", raw(`{"` + strings.Repeat("n", 3<<20) + `":1}`), "1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			e.Prefix = harness.MemoryLimit(t, megabytes(150))
			ref := e.Serve(harness.Build(t, imgbuild.Spec{Entries: tt.entries}))
			refused(t, e, 4, []string{"world.fs", tt.says}, ref, e.MountDir())
		})
	}
}

// TestBadTable: world.fs and cache.manifest as a whole.
func TestBadTable(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, field, text string
		code              int
		says              string
	}{
		{"empty tree", "world.fs", "", 4, "empty"},
		{"no JSON", "world.fs", "hello", 4, "world.fs"},
		{"cut", "world.fs", `{"kind":"fs.tree.v1","entries":[{"path":"a"`, 4, "ends in the middle"},
		{"something behind", "world.fs", `{"kind":"fs.tree.v1","entries":[]} {}`, 4, "after the JSON value"},
		{"another kind", "world.fs", `{"kind":"fs.tree.v2","entries":[]}`, 4, "fs.tree.v2"},
		{"no entries", "world.fs", `{"kind":"fs.tree.v1"}`, 4, "entries is missing"},
		{"entries twice", "world.fs", `{"kind":"fs.tree.v1","entries":[],"entries":[]}`, 4, "duplicate"},
		{"nested", "world.fs", `{"kind":"fs.tree.v1","entries":` + nested(200_000) + `}`, 4, "world.fs"},
		{"nested objects", "world.fs", strings.Repeat(`{"a":`, 200_000) + "1" + strings.Repeat("}",
			200_000), 4, "nested"},
		{"nested beside", "world.fs", `{"kind":"fs.tree.v1","x":` + nested(200_000) +
			`,"entries":[]}`, 4, "nested"},
		{"pages are no JSON", "cache.manifest", "hello", 4, "cache.manifest"},
		{"pages nested", "cache.manifest", `{"pages":` + nested(200_000) + `}`, 4, "cache.manifest"},
		{"page without v", "cache.manifest",
			`{"layout":"paged-batchinvariant-v1","pages":[{"ix":0,"k":"sha256:` +
				strings.Repeat("ab", 32) + `"}]}`, 4, "v"},
		{"page -1", "cache.manifest",
			`{"layout":"paged-batchinvariant-v1","pages":[{"ix":-1,"k":"sha256:` +
				strings.Repeat("ab", 32) + `","v":"sha256:` + strings.Repeat("ab", 32) + `"}]}`, 4, "-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			e.Prefix = harness.MemoryLimit(t, megabytes(150))
			ref := e.Serve(harness.Build(t, imgbuild.Spec{Top: map[string][]byte{tt.field: []byte(tt.text)}}))
			refused(t, e, tt.code, []string{tt.field, tt.says}, ref, e.MountDir())
		})
	}
}

// TestTenMillionEntries: a tree of more entries than the limit is read as a stream and refused with
// the limit.
func TestTenMillionEntries(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Build(t, imgbuild.Spec{Seq: func(yield func(imgbuild.Entry) bool) {
		for n := range 10_000_000 {
			if !yield(imgbuild.Entry{Raw: fmt.Sprintf(`{"path":"%d","kind":"dir"}`, n)}) {
				return
			}
		}
	}})
	ref := e.Serve(img)
	e.Prefix = harness.MemoryLimit(t, megabytes(700))
	refused(t, e, 2, []string{"world.fs", "4000000"}, ref, e.MountDir())
}
