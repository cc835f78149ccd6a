package fusefs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// These look at answers that the kernel would hide.

// TestReadDirPlus lists with attributes that hold for ever, except for "." and "..", which the
// kernel does not want, and the file whose size is not known.
func TestReadDirPlus(t *testing.T) {
	im := newImage(t, file("a", "12345"), dir("d"), link("l", "a"))
	f := New(im.ix, im.blobs, Options{})
	for name, want := range map[string]map[string]bool{ // whether an entry comes with attributes
		"world/fs": {".": false, "..": false, "a": true, "d": true, "l": true},
		"model":    {".": false, "..": false, "base": true, "diff.json": false},
	} {
		out := fuse.NewDirEntryList(make([]byte, 4096), 0)
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: uint64(im.find(t, name))}}
		if code := f.ReadDirPlus(nil, in, out); !code.Ok() {
			t.Fatalf("%s: %v", name, code)
		}
		entries, attrs, err := fuse.ParseDirLookupEntries(out.Bytes())
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%s: %v, %v, want %v", name, entries, err, want)
		}
		for i, e := range entries {
			got := attrs[i]
			if full := got.NodeId != 0; full != want[e.Name] {
				t.Errorf("%s/%s: node id %d, want attributes: %v", name, e.Name, got.NodeId, want[e.Name])
			} else if full && (got.NodeId != e.Ino || got.Ino != e.Ino ||
				got.AttrValid != forever || got.EntryValid != forever || got.Mode&unix.S_IFMT != e.Mode) {
				t.Errorf("%s/%s: %+v beside %+v", name, e.Name, got, e)
			}
		}
	}
}

// TestLookupValidity has the kernel keep names for ever, those that are not there too, and sizes
// only when they are known.
func TestLookupValidity(t *testing.T) {
	im := newImage(t, file("a", "x"))
	f := New(im.ix, im.blobs, Options{})
	for _, test := range []struct {
		dir, name string
		there     bool
		attr      uint64
	}{
		{"model", "base", true, forever},
		{"model", "diff.json", true, 0},
		{"model", "none", false, 0},
		{"world/fs", "a", true, forever},
	} {
		var out fuse.EntryOut
		code := f.Lookup(nil, &fuse.InHeader{NodeId: uint64(im.find(t, test.dir))}, test.name, &out)
		if !code.Ok() || (out.NodeId != 0) != test.there || out.EntryValid != forever ||
			out.AttrValid != test.attr {
			t.Errorf("%s/%s: %v, %+v, want there: %v, attributes for %d s", test.dir, test.name,
				code, out, test.there, test.attr)
		}
	}
}

// TestForgedNodes asks for rows above the root and for rows that are none, as a forged file handle does.
func TestForgedNodes(t *testing.T) {
	im := newImage(t, dir("d"), file("d/a", "x"), file("b", "above"))
	f := New(im.ix, im.blobs, Options{Root: im.find(t, "world/fs/d")})
	for _, test := range []struct {
		node uint64
		name string
		want uint64 // node id; 0: not there
	}{
		{fuse.FUSE_ROOT_ID, ".", fuse.FUSE_ROOT_ID},
		{fuse.FUSE_ROOT_ID, "..", fuse.FUSE_ROOT_ID},
		{uint64(im.find(t, "world/fs/d")), "..", fuse.FUSE_ROOT_ID},
		{uint64(im.find(t, "world/fs/d/a")), ".", uint64(im.find(t, "world/fs/d/a"))},
		{uint64(im.find(t, "world/fs/d/a")), "..", fuse.FUSE_ROOT_ID},
		{uint64(im.find(t, "world/fs")), ".", 0},
		{uint64(im.find(t, "world/fs")), "..", 0},
		{uint64(im.find(t, "world/fs/b")), ".", 0},
		{1 << 40, ".", 0},
		{1 << 40, "..", 0},
		{1 << 40, "a", 0},
		{0, ".", 0},
	} {
		var out fuse.EntryOut
		if code := f.Lookup(nil, &fuse.InHeader{NodeId: test.node}, test.name, &out); !code.Ok() ||
			out.NodeId != test.want {
			t.Errorf("%q of node %d: %v, node %d, want %d", test.name, test.node, code, out.NodeId, test.want)
		}
	}
	none := fuse.InHeader{NodeId: 1 << 40}
	if code := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: none}, new(fuse.AttrOut)); code != fuse.ENOENT {
		t.Errorf("getattr of no row: %v", code)
	}
	if _, code := f.Read(nil, &fuse.ReadIn{InHeader: none}, make([]byte, 1)); code != fuse.EINVAL {
		t.Errorf("read of no row: %v", code)
	}
	if _, code := f.Readlink(nil, &none); code != fuse.EINVAL {
		t.Errorf("readlink of no row: %v", code)
	}
	if code := f.ReadDir(nil, &fuse.ReadIn{InHeader: none},
		fuse.NewDirEntryList(make([]byte, 100), 0)); code != fuse.ENOTDIR {
		t.Errorf("readdir of no row: %v", code)
	}
}
