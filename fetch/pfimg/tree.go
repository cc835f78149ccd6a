package pfimg

import (
	"bytes"

	"github.com/pfmount/pfmount/fetch/strictjson"
)

// treeKind is the "kind" of a file tree.
const treeKind = "fs.tree.v1"

// tree is the state of reading world.fs.
type tree struct {
	root    uint32 // node of world/fs
	max     int    // entries, and nodes, at most
	entries int
	first   int // the tree's nodes are first … last-1
	last    int //
	// the directory of the entry before: trees are sorted, so it is mostly this one's too
	dirPath []byte
	dir     uint32
}

// readTree reads world.fs: {"kind":"fs.tree.v1","entries":[…]}.
func (b *builder) readTree(s *strictjson.Reader) error {
	var kind string
	var haveKind, haveEntries bool
	b.tree.first = len(b.nodes)
	err := s.Object(func(name []byte) error {
		switch string(name) {
		case "kind":
			text, err := s.Text()
			kind, haveKind = string(text), true
			return err
		case "entries":
			haveEntries = true
			return b.readEntries(s)
		}
		return s.Skip()
	})
	b.tree.last = len(b.nodes)
	switch {
	case err != nil:
		return err
	case !haveKind:
		return s.Bad("kind is missing")
	case kind != treeKind:
		return s.Bad("kind is %s, want %q", quote(kind), treeKind)
	case !haveEntries:
		return s.Bad("entries is missing")
	}
	return nil
}

func (b *builder) readEntries(s *strictjson.Reader) error {
	var e entry
	field := func(name []byte) error { return e.field(s, name) }
	return s.Array(func() error {
		if b.tree.entries++; b.tree.entries > b.tree.max {
			return b.tooMany(s)
		}
		e = entry{path: e.path[:0], target: e.target[:0], kind: e.kind[:0]}
		if err := s.Object(field); err != nil {
			return err
		}
		if e.has&hasPath == 0 {
			return s.Bad("entry %d: path is missing", b.tree.entries-1)
		}
		why := checkPath(e.path)
		if why == "" {
			why = e.check()
		}
		if why != "" {
			return s.Bad("entry %s: %s", quote(e.path), why)
		}
		return b.addEntry(s, &e)
	})
}

func (b *builder) tooMany(s *strictjson.Reader) error {
	return s.Error(ErrUnsupported, "more than %d entries", b.tree.max)
}

// addEntry puts a checked entry in its place.
func (b *builder) addEntry(s *strictjson.Reader, e *entry) error {
	parent, err := b.parent(s, e.path)
	if err != nil {
		return err
	}
	id, isNew := b.child(parent, e.path[bytes.LastIndexByte(e.path, '/')+1:])
	n := &b.nodes[id]
	kind := e.what()
	switch {
	case isNew && len(b.nodes)-b.tree.first > b.tree.max:
		return b.tooMany(s)
	case !isNew && (n.kind == Dir) != (kind == Dir):
		return s.Bad("entry %s: it is both a directory and something else", quote(e.path))
	case !isNew && kind != Dir:
		b.twice(id)
	}
	n.kind, n.mode = kind, e.mode&permBits
	switch {
	case kind == Symlink:
		n.mode = 0o777 // as lstat(2) says of every symlink
		return b.setLink(s, id, e)
	case kind == Dir && e.has&hasMode == 0:
		n.mode = 0o755
	case kind == File && e.has&hasMode == 0:
		n.mode = 0o644
	}
	if kind == File {
		n.ref = b.blobs.add(e.blob)
		if e.size == 0 && e.blob != nothing {
			return nil // says no size: the digest is of something, which must not read as empty
		}
		return b.size(s, n.ref, e.size, id)
	}
	return nil
}

func (b *builder) setLink(s *strictjson.Reader, id uint32, e *entry) error {
	l := link{start: uint32(len(b.text)), length: uint32(len(e.target)), blob: none}
	if len(b.text)+len(e.target) > maxText {
		return s.Error(ErrUnsupported, "link targets of more than %d bytes in all", maxText)
	}
	b.text = append(b.text, e.target...)
	if e.has&hasBlob != 0 {
		l.blob = b.blobs.add(e.blob)
	}
	b.nodes[id].ref = uint32(len(b.links))
	b.links = append(b.links, l)
	if e.has&hasBlob == 0 {
		return nil
	}
	return b.size(s, l.blob, int64(len(e.target)), id)
}

func (b *builder) size(s *strictjson.Reader, blob uint32, size int64, id uint32) error {
	if err := b.sized(blob, size, id); err != nil {
		return s.Wrap(err)
	}
	return nil
}

// parent returns the directory of a path, made with mode 0755 as far as it is not there yet.
func (b *builder) parent(s *strictjson.Reader, path []byte) (uint32, error) {
	end := bytes.LastIndexByte(path, '/')
	if end < 0 {
		return b.tree.root, nil
	}
	if bytes.Equal(path[:end], b.tree.dirPath) {
		return b.tree.dir, nil
	}
	dir := b.tree.root
	for rest, more := path[:end], true; more; {
		var name []byte
		name, rest, more = bytes.Cut(rest, []byte("/"))
		id, isNew := b.child(dir, name)
		switch {
		case isNew && len(b.nodes)-b.tree.first > b.tree.max:
			return 0, b.tooMany(s)
		case isNew:
			b.nodes[id].kind, b.nodes[id].mode = Dir, 0o755
		case b.nodes[id].kind != Dir:
			return 0, s.Bad("entry %s: %s is no directory", quote(path), quote(b.path(id)))
		}
		dir = id
	}
	b.tree.dirPath, b.tree.dir = append(b.tree.dirPath[:0], path[:end]...), dir
	return dir, nil
}
