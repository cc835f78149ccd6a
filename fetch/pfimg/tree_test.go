package pfimg

import (
	"fmt"
	"strings"
	"testing"
)

func TestTreeShows(t *testing.T) {
	blob := func(size int) string { return hash(strings.Repeat("x", size)).String() }
	deep := strings.Repeat("d/", MaxDepth-1) + "f"
	tests := []struct {
		name    string
		entries []string
		want    map[string]string
		warns   int
	}{
		{"older images: no mode, no kind, no directories",
			[]string{`"path":"a/b/c","size":3,"blob":"` + blob(3) + `"`},
			map[string]string{"a": "dir 0755 nlink 3", "a/b": "dir 0755 nlink 2", "a/b/c": "file 0644 3"}, 0},
		{"nulls are absent", []string{`"path":"a","size":3,"mode":null,"kind":null,"link_target":null,"blob":"` + blob(3) + `"`, `"path":"d","kind":"dir","blob":null,"size":null`},
			map[string]string{"a": "file 0644 3", "d": "dir 0755 nlink 2"}, 0},
		{"fields in any order, unknown ones",
			[]string{`"x":{"path":"no"},"blob":"` + blob(3) +
				`","size":3,"kind":"file","mode":"0600","path":"a"`},
			map[string]string{"a": "file 0600 3"}, 0},
		{"upper-case digest", []string{`"path":"a","size":3,"blob":"sha256:` +
			strings.ToUpper(blob(3)[7:]) + `"`, file("b", 3)},
			map[string]string{"a": "file 0644 3", "b": "file 0644 3"}, 0},
		{"set-id bits are dropped, sticky is not", []string{
			`"path":"a","mode":"4755","size":3,"blob":"` + blob(3) + `"`,
			`"path":"b","mode":"6711","size":3,"blob":"` + blob(3) + `"`,
			`"path":"t","mode":"1777","kind":"dir"`,
			`"path":"z","mode":"7777","size":3,"blob":"` + blob(3) + `"`,
			`"path":"n","mode":"0","size":3,"blob":"` + blob(3) + `"`},
			map[string]string{"a": "file 0755 3", "b": "file 0711 3", "t": "dir 1777 nlink 2",
				"z": "file 1777 3", "n": "file 0000 3"}, 0},
		{"a symlink without blob, size and mode",
			[]string{`"path":"l","kind":"symlink","link_target":"/tmp"`},
			map[string]string{"l": "symlink 0777 4 -> /tmp"}, 0},
		{"symlinks as recorded", []string{ln("a", "/etc/passwd"), ln("b", "../../../x"),
			ln("c", "no/such"), ln("d", "d"), ln("e", strings.Repeat("x", MaxLink))},
			map[string]string{"a": "symlink 0777 11 -> /etc/passwd",
				"b": "symlink 0777 10 -> ../../../x", "c": "symlink 0777 7 -> no/such",
				"d": "symlink 0777 1 -> d", "e": "symlink 0777 4095 -> " + strings.Repeat("x", MaxLink)}, 0},
		{"a backslash is a plain byte", []string{file(`..\x`, 1), file(`...`, 1), file(`..a`, 1)},
			map[string]string{`..\x`: "file 0644 1", "...": "file 0644 1", "..a": "file 0644 1"}, 0},
		{"one path twice: the last wins", []string{file("a", 1), file("a", 2), file("a", 3)},
			map[string]string{"a": "file 0644 3"}, 2},
		{"one path twice: same digest", []string{file("a", 1), file("a", 1)},
			map[string]string{"a": "file 0644 1"}, 1},
		{"one path twice: a file, then a symlink", []string{file("a", 1), ln("a", "b")},
			map[string]string{"a": "symlink 0777 1 -> b"}, 1},
		{"one path twice: a symlink, then a file",
			[]string{ln("z", "q"), ln("a", "b"), file("a", 1)},
			map[string]string{"a": "file 0644 1", "z": "symlink 0777 1 -> q"}, 1},
		{"names that differ in case or normal form",
			[]string{file("a", 1), file("A", 2), file("\u00e9", 3), file("e\u0301", 4)},
			map[string]string{"a": "file 0644 1", "A": "file 0644 2", "\u00e9": "file 0644 3",
				"e\u0301": "file 0644 4"}, 0},
		{"a directory twice: the last mode wins",
			[]string{`"path":"d","kind":"dir","mode":"0700"`, file("d/a", 1),
				`"path":"d","kind":"dir","mode":"0750"`},
			map[string]string{"d": "dir 0750 nlink 2", "d/a": "file 0644 1"}, 0},
		{"a directory after its children", []string{file("d/a", 1), `"path":"d","kind":"dir","mode":"0700"`},
			map[string]string{"d": "dir 0700 nlink 2", "d/a": "file 0644 1"}, 0},
		{"odd names", []string{file("\n", 1), file("a\nb", 1), file("-", 1), file("tail ", 1),
			file("\t", 1), file("*", 1), file("\U0001f6b2", 1),
			file("\u202egnp", 1), file(strings.Repeat("n", MaxName), 1), file("\ufffd", 1), file(" ", 1)},
			map[string]string{"\n": "file 0644 1", "a\nb": "file 0644 1", "-": "file 0644 1",
				"tail ": "file 0644 1", "\t": "file 0644 1", "*": "file 0644 1",
				"\U0001f6b2": "file 0644 1", "\u202egnp": "file 0644 1",
				strings.Repeat("n", MaxName): "file 0644 1", "\ufffd": "file 0644 1",
				" ": "file 0644 1"}, 0},
		{"the deepest path", []string{file(deep, 1)}, nil, 0},
		{"one digest twice: a file with the bytes of a symlink's target",
			[]string{ln("l", "x"), file("f", 1)},
			map[string]string{"l": "symlink 0777 1 -> x", "f": "file 0644 1"}, 0},
		{"a size of 0 over the digest of something is none",
			[]string{`"path":"a","size":0,"blob":"` + blob(3) + `"`, file("b", 0)},
			map[string]string{"a": "file 0644 -1", "b": "file 0644 0"}, 0},
		{"and another entry may say it", []string{`"path":"a","size":0,"blob":"` + blob(3) + `"`,
			file("b", 3)},
			map[string]string{"a": "file 0644 3", "b": "file 0644 3"}, 0},
		{"the largest size", []string{`"path":"a","size":9007199254740992,"blob":"` + blob(1) +
			`"`}, map[string]string{"a": "file 0644 9007199254740992"}, 0},
		{"names sort as bytes, parts apart", []string{file("foo/bar", 1), file("foo-bar", 1),
			file("foo", 1)[:0] + dir("foo")},
			map[string]string{"foo": "dir 0755 nlink 2", "foo/bar": "file 0644 1",
				"foo-bar": "file 0644 1"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := buildFrom(treeOf(tt.entries...), emptyTable, 1000)
			if err != nil {
				t.Fatal(err)
			}
			got := list(t, x, "world/fs")
			if tt.want != nil {
				wantMap(t, got, tt.want)
			} else if len(got) != MaxDepth {
				t.Errorf("%d names, want %d", len(got), MaxDepth)
			}
			if len(x.Warnings()) != tt.warns {
				t.Errorf("warnings %q, want %d", x.Warnings(), tt.warns)
			}
		})
	}
}

func TestTreeRefuses(t *testing.T) {
	t.Parallel()
	ok := hash("x").String()
	entry := func(fields string) string { return treeOf(fields) }
	tests := []struct{ name, tree, says string }{
		{"leaves the tree: up", entry(file("../x", 1)), `entry "../x"`},
		{"leaves the tree: up inside", entry(file("a/../../x", 1)), `entry "a/../../x"`},
		{"leaves the tree: up within", entry(file("a/../x", 1)), `entry "a/../x"`},
		{"leaves the tree: up last", entry(file("a/..", 1)), `entry "a/.."`},
		{"leaves the tree: a file of only dots", entry(file("..", 1)), `entry ".."`},
		{"leaves the tree: a file at the root", entry(file(".", 1)), `entry "."`},
		{"leaves the tree: slash", entry(file("/", 1)), `entry "/"`},
		{"leaves the tree: absolute", entry(file("/etc/passwd", 1)), `entry "/etc/passwd": an absolute path`},
		{"leaves the tree: double slash", entry(file("a//b", 1)), `entry "a//b": an empty name`},
		{"leaves the tree: dot first", entry(file("./a", 1)), `entry "./a"`},
		{"leaves the tree: dot inside", entry(file("a/./b", 1)), `entry "a/./b"`},
		{"leaves the tree: dot last", entry(file("a/.", 1)), `entry "a/."`},
		{"leaves the tree: only dots", entry(dir("..")), `entry ".."`},
		{"leaves the tree: the root itself", entry(dir(".")), `entry "."`},
		{"leaves the tree: empty", entry(file("", 1)), `entry "": an empty path`},
		{"leaves the tree: slash last", entry(dir("a/")), `entry "a/": an empty name`},
		{"leaves the tree: NUL", entry(strings.Replace(file("aXb", 1), "X", `\u0000`, 1)),
			`entry "a\x00b": a NUL`},
		{"leaves the tree: below a symlink", treeOf(ln("d", "/tmp"), file("d/evil", 1)),
			`entry "d/evil": "world/fs/d" is no directory`},
		{"one path twice: a file, then a folder", treeOf(file("a", 1), file("a/b", 1)),
			`entry "a/b": "world/fs/a" is no directory`},
		{"one path twice: a folder, then a file", treeOf(file("a/b", 1), file("a", 1)),
			`entry "a": it is both`},
		{"one path twice: a file, then a dir entry", treeOf(file("a", 1), dir("a")), `entry "a": it is both`},
		{"one path twice: a dir entry, then a symlink", treeOf(dir("a"), ln("a", "b")),
			`entry "a": it is both`},
		{"one path twice: deep below a file", treeOf(file("x/a", 1), file("x/a/b/c/d", 1)),
			`"world/fs/x/a" is no directory`},
		{"odd name: a name of 256 bytes", entry(file(strings.Repeat("n", 256), 1)), "255 bytes"},
		{"odd name: a name of 300 bytes in a folder",
			entry(file("d/"+strings.Repeat("n", 300)+"/f", 1)), "255 bytes"},
		{"a path of 5,000 bytes",
			entry(file(strings.Repeat(strings.Repeat("n", 99)+"/", 50)+"f", 1)), "4096 bytes"},
		{"257 names deep", entry(file(strings.Repeat("d/", 256)+"f", 1)), "256 names"},
		{"an escape sequence in a path", entry(file("\x1b[2J/../x", 1)), `"\x1b[2J/../x"`},
		{"no path", entry(`"mode":"0644","size":1,"blob":"` + ok + `"`), "entry 0: path is missing"},
		{"path null", entry(`"path":null,"size":1,"blob":"` + ok + `"`), "path is missing"},
		{"path a number", entry(`"path":1`), "/entries/0/path"},
		{"no blob", entry(`"path":"a","size":1`), `entry "a": a file without blob`},
		{"no size", entry(`"path":"a","blob":"` + ok + `"`), `entry "a": a file without size`},
		{"negative size", entry(`"path":"a","size":-1,"blob":"` + ok + `"`), "-1"},
		{"minus zero", entry(`"path":"a","size":-0,"blob":"` + ok + `"`), "-0"},
		{"size beyond 2^53", entry(`"path":"a","size":9007199254740993,"blob":"` + ok + `"`),
			"9007199254740993"},
		{"size beyond 64 bits", entry(`"path":"a","size":18446744073709551617,"blob":"` + ok + `"`),
			"18446744073709551617"},
		{"size of 100,000 digits",
			entry(`"path":"a","size":1` + strings.Repeat("0", 100_000) + `,"blob":"` + ok + `"`),
			"/entries/0/size"},
		{"size with an exponent", entry(`"path":"a","size":1e3,"blob":"` + ok + `"`), "1e3"},
		{"size a fraction", entry(`"path":"a","size":1.5,"blob":"` + ok + `"`), "1.5"},
		{"size a string", entry(`"path":"a","size":"1","blob":"` + ok + `"`), "/entries/0/size"},
		{"negative size of a directory", entry(`"path":"a","kind":"dir","size":-1`), "-1"},
		{"bad digest", entry(`"path":"a","size":1,"blob":"sha256:00"`), "sha256:00"},
		{"bad mode", entry(`"path":"a","mode":"0888","size":1,"blob":"` + ok + `"`), "0888"},
		{"mode too large", entry(`"path":"a","mode":"10000","size":1,"blob":"` + ok + `"`), "10000"},
		{"mode with a file type", entry(`"path":"a","mode":"100644","size":1,"blob":"` + ok + `"`), "100644"},
		{"mode empty", entry(`"path":"a","mode":"","size":1,"blob":"` + ok + `"`), "mode"},
		{"mode a number", entry(`"path":"a","mode":420,"size":1,"blob":"` + ok + `"`), "/entries/0/mode"},
		{"unknown kind", entry(`"path":"a","kind":"fifo"`), `entry "a": unknown kind "fifo"`},
		{"kind in capitals", entry(`"path":"a","kind":"Dir"`), `unknown kind "Dir"`},
		{"kind empty", entry(`"path":"a","kind":""`), `unknown kind ""`},
		{"a symlink without target",
			entry(`"path":"a","kind":"symlink","size":1,"blob":"` + ok + `"`), "without link_target"},
		{"a symlink with an empty target", entry(ln("a", "")), "an empty link_target"},
		{"a symlink with a long target", entry(ln("a", strings.Repeat("x", MaxLink+1))), "4095"},
		{"a symlink with NUL", entry(`"path":"a","kind":"symlink","link_target":"a\u0000b"`),
			"a NUL in link_target"},
		{"a symlink of another size",
			entry(`"path":"a","kind":"symlink","size":2,"link_target":"x"`), "size 2"},
		{"a symlink with another blob",
			entry(`"path":"a","kind":"symlink","size":1,"link_target":"y","blob":"` + ok + `"`),
			"digest of link_target"},
		{"one digest, two sizes", treeOf(`"path":"d/a","size":1,"blob":"`+ok+`"`,
			`"path":"b","size":2,"blob":"`+ok+`"`), `has 1 bytes in "world/fs/d/a" and 2 in "world/fs/b"`},
		{"one digest, a symlink and a file", treeOf(ln("l", "x"),
			`"path":"b","size":2,"blob":"`+ok+`"`), `"world/fs/l" and 2 in "world/fs/b"`},
		{"one digest, two sizes, one hidden",
			treeOf(`"path":"a","size":1,"blob":"`+ok+`"`, `"path":"a","size":2,"blob":"`+ok+`"`),
			`has 1 bytes`},
		{"duplicate field", entry(`"path":"a","path":"b"`), "duplicate"},
		{"duplicate field by escape", entry(`"path":"a","p\u0061th":"b"`), "duplicate"},
		{"wrong case", entry(`"path":"a","size":1,"BLOB":"` + ok + `"`), "without blob"},
		{"invalid UTF-8", entry("\"path\":\"a\xff\""), "UTF-8"},
		{"entry no object", `{"kind":"fs.tree.v1","entries":["a"]}`, "/entries/0: want an object"},
		{"entries no array", `{"kind":"fs.tree.v1","entries":{}}`, "/entries: want an array"},
		{"entries null", `{"kind":"fs.tree.v1","entries":null}`, "/entries"},
		{"no entries", `{"kind":"fs.tree.v1"}`, "entries is missing"},
		{"no kind", `{"entries":[]}`, "kind is missing"},
		{"another kind", `{"kind":"fs.tree.v2","entries":[]}`, `"fs.tree.v2"`},
		{"kind last and wrong", `{"entries":[{` + file("a", 1) + `}],"kind":"env.v1"}`, `"env.v1"`},
		{"entries twice", `{"kind":"fs.tree.v1","entries":[],"entries":[]}`, "duplicate"},
		{"no object", `[]`, "the top level: want an object"},
		{"empty", ``, "empty"},
		{"white space", ` `, "empty"},
		{"no JSON", "PK\x03\x04", "world.fs"},
		{"cut", treeOf(file("a", 1))[:60], "middle"},
		{"trailing value", treeOf() + `{}`, "after"},
		{"trailing garbage", treeOf() + "\x00", "world.fs"},
		{"missing comma", `{"kind":"fs.tree.v1","entries":[{} {}]}`, "world.fs"},
		{"nested 200,000 deep", strings.Repeat(`{"x":`, 200_000), "deep"},
		{"entries nested 200,000 deep", `{"kind":"fs.tree.v1","entries":` + strings.Repeat("[",
			200_000), "want an object"},
		{"a field nested 200,000 deep", entry(`"x":` + strings.Repeat("[", 200_000)), "deep"},
		{"a string of 3 MiB", entry(`"path":"` + strings.Repeat("a", 3<<20) + `"`), "token"},
		{"3 MiB of white space", treeOf() + strings.Repeat(" ", 3<<20), "token"},
		{"3 MiB of names in one object", entry(manyNames(3 << 20)), "names"},
		{"3 MiB of names in a skipped object", entry(`"x":{` + manyNames(3<<20) + `}`), "names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := buildFrom(tt.tree, emptyTable, 1000)
			wantError(t, err, ErrIntegrity, tt.says)
			if x != nil {
				t.Error("an index came with the error")
			}
		})
	}
}

// manyNames are so many bytes of names, each with a value.
func manyNames(bytes int) string {
	var b strings.Builder
	for i := 0; i*8 < bytes; i++ {
		fmt.Fprintf(&b, `"%08d":0,`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func TestTreeBytesInAll(t *testing.T) {
	var entries []string
	for i := range 129 { // 128 × 2^53 is 2^60
		entries = append(entries, fmt.Sprintf(`"path":"%d","size":9007199254740992,"blob":"%s"`, i,
			hash(fmt.Sprint(i))))
	}
	_, err := buildFrom(treeOf(entries[:128]...), emptyTable, 1000)
	wantError(t, err, nil, "")
	_, err = buildFrom(treeOf(entries...), emptyTable, 1000)
	wantError(t, err, ErrIntegrity, `"world/fs/128"`)
}

func TestTreeLimit(t *testing.T) {
	tests := []struct {
		name    string
		entries []string
		wantErr error
	}{
		{"as many as allowed", []string{file("a", 1), file("b", 1), file("c", 1), file("d", 1)}, nil},
		{"one more", []string{file("a", 1), file("b", 1), file("c", 1), file("d", 1), file("e", 1)},
			ErrUnsupported},
		{"one more of the same path", []string{dir("a"), dir("a"), dir("a"), dir("a"), dir("a")},
			ErrUnsupported},
		{"directories count", []string{file("a/b/c/d", 1)}, nil},
		{"implied directories count", []string{file("a/b/c/d/e", 1)}, ErrUnsupported},
		{"implied directories alone are too many", []string{file("a/b/c/d/e/f/g", 1)}, ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := buildFrom(treeOf(tt.entries...), emptyTable, 4)
			wantError(t, err, tt.wantErr, "more than 4 entries")
		})
	}
}

func TestWarningsAreBounded(t *testing.T) {
	var entries []string
	for range 1 + maxWarnings + 7 {
		entries = append(entries, file("a\n", 1))
	}
	x, err := buildFrom(treeOf(entries...), emptyTable, 1000)
	if err != nil {
		t.Fatal(err)
	}
	w := x.Warnings()
	if len(w) != maxWarnings+1 || !strings.Contains(w[0], `"world/fs/a\n"`) ||
		!strings.Contains(w[maxWarnings], "7 more") {
		t.Errorf("%d warnings, the first %q, the last %q", len(w), w[0], w[len(w)-1])
	}
}
