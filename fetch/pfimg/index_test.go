package pfimg

import (
	"math"
	"strings"
	"sync"
	"testing"
)

func mustBuild(t testing.TB, tree, table string) *Index {
	t.Helper()
	x, err := buildFrom(tree, table, MaxEntries)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func mustFind(t testing.TB, x *Index, path string) Row {
	t.Helper()
	row, ok := x.Find(path)
	if !ok {
		t.Fatalf("%q is not there", path)
	}
	return row
}

func TestSetSize(t *testing.T) {
	x := mustBuild(t, treeOf(file("f", 3)), emptyTable)
	env, f := mustFind(t, x, "world/env.json"), mustFind(t, x, "world/fs/f")
	before := x.Stats().Bytes
	tests := []struct {
		name        string
		digest      Digest
		n, env, f   int64
		bytesBeyond int64
	}{
		{"not yet", hash("unknown digest"), 9, -1, 3, 0},
		{"told", hash("env"), 10, 10, 3, 10},
		{"corrected", hash("env"), 7, 7, 3, 7},
		{"negative is nothing", hash("env"), -1, 7, 3, 7},
		{"absurd is nothing", hash("env"), math.MaxInt64, 7, 3, 7},
		{"zero is a size", hash("env"), 0, 0, 3, 0},
		{"a signed size stays", hash("xxx"), 99, 0, 3, 0},
	}
	for _, tt := range tests {
		x.SetSize(tt.digest, tt.n)
		if a, _ := x.Attr(env); a.Size != tt.env {
			t.Errorf("%s: world/env.json has %d, want %d", tt.name, a.Size, tt.env)
		}
		if _, size, _ := x.Blob(f); size != tt.f {
			t.Errorf("%s: f has %d, want %d", tt.name, size, tt.f)
		}
		if got := x.Stats().Bytes - before; got != tt.bytesBeyond {
			t.Errorf("%s: the sum grew by %d, want %d", tt.name, got, tt.bytesBeyond)
		}
	}
}

// A tree entry that names a top-level blob signs its size.
func TestTopLevelBlobWithSignedSize(t *testing.T) {
	x := mustBuild(t, treeOf(`"path":"copy","size":3,"blob":"`+hash("env").String()+`"`), emptyTable)
	row := mustFind(t, x, "world/env.json")
	x.SetSize(hash("env"), 4)
	if a, _ := x.Attr(row); a.Size != 3 {
		t.Errorf("world/env.json has %d bytes, want the signed 3", a.Size)
	}
	if got := x.Stats().Blobs; got != 8 {
		t.Errorf("%d blobs, want 8", got)
	}
}

func TestSetSizeBesideReaders(t *testing.T) {
	x := mustBuild(t, treeOf(file("f", 3)), emptyTable)
	row := mustFind(t, x, "model/diff.json")
	before := x.Stats().Bytes
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range int64(500) {
				x.SetSize(hash("diff"), n)
				if a, ok := x.Attr(row); !ok || a.Size < 0 || a.Size > 500 {
					t.Errorf("worker %d: size %d", i, a.Size)
				}
				for range x.Blobs() {
				}
			}
		})
	}
	all.Wait()
	x.SetSize(hash("diff"), 7)
	if got := x.Stats().Bytes - before; got != 7 {
		t.Errorf("the sum grew by %d, want 7", got)
	}
}

func TestFind(t *testing.T) {
	d := hash("env")
	x := mustBuild(t, treeOf(file("a/b", 1), ln("l", "a")), emptyTable)
	tests := []struct {
		path string
		want string // Path of what is found, "-" for nothing
	}{
		{"", ""}, {"/", ""}, {"world", "world"}, {"/world/", "world"},
		{"world/fs/a/b", "world/fs/a/b"}, {"/world/fs/a/b/", "world/fs/a/b"},
		{"world//fs", "-"}, {"//world", "-"}, {"world/./fs", "-"}, {"world/..", "-"},
		{"world/fs/a/b/c", "-"}, {"world/fs/l/b", "-"}, {"World", "-"},
		{"manifest.json/x", "-"}, {"manifest.json.sig", "manifest.json.sig"}, {"manifest.json.sig/x", "-"},
		{"world/manifest.json.sig", "-"}, {"blobs/sha256", "blobs/sha256"}, {"blobs/sha512", "-"},
		{"blobs/sha256/" + d.Hex()[:2], "blobs/sha256/" + d.Hex()[:2]},
		{"blobs/sha256/" + d.Hex()[:2] + "/" + d.Hex(), "blobs/sha256/" + d.Hex()[:2] + "/" + d.Hex()},
		{"blobs/sha256/" + d.Hex()[:2] + "/" + strings.ToUpper(d.Hex()), "-"},
		{"blobs/sha256/" + d.Hex()[:2] + "/" + d.Hex()[:63], "-"},
		{"blobs/sha256/" + d.Hex()[:2] + "/" + d.Hex() + "/x", "-"},
		{"blobs/sha256/" + hash("base").Hex()[:2] + "/" + d.Hex(), "-"},
		{"blobs/sha256/" + d.Hex()[:2] + "/" + hash("no blob").Hex(), "-"},
		{"blobs/sha256/zz", "-"}, {"blobs/sha256/0", "-"}, {"blobs/sha256/", "blobs/sha256"},
	}
	for _, tt := range tests {
		row, ok := x.Find(tt.path)
		got := "-"
		if ok {
			got = x.Path(row)
		}
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.path, got, tt.want)
		}
	}
}

// Rows that do not exist answer nothing, whatever number the kernel sends.
func TestNoSuchRow(t *testing.T) {
	x := mustBuild(t, treeOf(file("f", 1), ln("l", "f")), emptyTable)
	last := Row(x.Stats().Rows)
	for _, r := range []Row{0, last + 1, last + 2, 1 << 31, 1 << 32, 1 << 63, math.MaxUint64} {
		_, attr := x.Attr(r)
		_, link := x.Link(r)
		_, _, blob := x.Blob(r)
		_, inline := x.Inline(r)
		_, look := x.Lookup(r, "f")
		_, _, child := x.Child(r, 0)
		if attr || link || blob || inline || look || child || x.Parent(r) != 0 || x.Path(r) != "" {
			t.Errorf("row %d answers: %v %v %v %v %v %v %d %q", r, attr, link, blob, inline, look,
				child, x.Parent(r), x.Path(r))
		}
	}
	for r := Root; r <= last; r++ {
		a, ok := x.Attr(r)
		if !ok || x.Parent(r) == 0 {
			t.Errorf("row %d: attr %v, parent %d", r, ok, x.Parent(r))
		}
		_, _, blob := x.Blob(r)
		_, inline := x.Inline(r)
		if (blob || inline) != (a.Kind != Dir) || blob && inline {
			t.Errorf("row %d (%s): blob %v, inline %v", r, x.Path(r), blob, inline)
		}
		for _, i := range []int{-1, math.MinInt, math.MaxInt} {
			if _, name, ok := x.Child(r, i); ok {
				t.Errorf("row %d: child %d is %q", r, i, name)
			}
		}
		if _, _, ok := x.Child(r, 0); ok && a.Kind != Dir {
			t.Errorf("row %d is no directory but has children", r)
		}
	}
	if x.Parent(Root) != Root {
		t.Errorf("the parent of the root is %d", x.Parent(Root))
	}
}

// A symlink of an older image has no blob.
func TestLinkBlob(t *testing.T) {
	x := mustBuild(t, treeOf(`"path":"old","kind":"symlink","link_target":"t1"`, ln("new", "t2")), emptyTable)
	if d, size, ok := x.Blob(mustFind(t, x, "world/fs/old")); ok {
		t.Errorf("old: blob %s of %d bytes", d, size)
	}
	if d, size, ok := x.Blob(mustFind(t, x, "world/fs/new")); !ok || d != hash("t2") || size != 2 {
		t.Errorf("new: blob %s of %d bytes, %v", d, size, ok)
	}
	if _, ok := x.Link(mustFind(t, x, "world/fs")); ok {
		t.Error("a directory has a link target")
	}
}
