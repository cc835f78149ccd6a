package pfimg

import (
	"iter"
	"strings"
	"sync/atomic"
	"time"
)

// Row is a row of an Index: inode number and FUSE node id at once.
type Row uint64

// Root is the row of the image's root directory. 0 is no row.
const Root Row = 1

// Attr is what stat(2) says of a row, as far as the image knows.
type Attr struct {
	Kind Kind
	Mode uint32 // permission bits and sticky; set-id bits are dropped
	// bytes: of the file's content or the symlink's target, 0 for directories, -1 while not known
	Size  int64
	Nlink uint32 // 2 + subdirectories, 1 for all else
}

// Stats is what an image holds.
type Stats struct {
	Files, Dirs, Symlinks int   // below world/fs, which does not count itself
	Pages                 int   // of the page table; each is two files, k and v
	Blobs                 int   // distinct reachable ones
	Bytes                 int64 // decoded bytes of those whose size is known
	Rows                  int   // names in the whole mount, its root included
}

// Index is the inode table of an image: a row a name. Rows are the same at every mount of the same
// image, signed or not. It is safe for concurrent use; nothing in it changes but sizes that were
// not known.
//
// Rows 1 to n are explicit, in columns. The names below blobs/sha256 follow from the sorted table
// of blobs and have no columns: first a row for each <aa> that is not empty, then one for each
// blob; manifest.json.sig is the very last row, so that an image without a signature has the same
// rows otherwise.
type Index struct {
	man       Manifest
	rows      rows
	dirs      []dirSpan
	links     links
	blobs     blobTable
	algorithm Row // blobs/sha256
	stats     Stats
	bytes     atomic.Int64
	warnings  []string
}

// rows are the columns of the explicit rows: 14 bytes and the name.
type rows struct {
	parent []uint32 // row number less 1, as all indexes here
	name   []uint32 // start in names; one more at the end
	meta   []uint16 // permBits, and the kind above them
	// Dir: index in dirs. Symlink: index in links. File: blob, none for manifest.json
	ref   []uint32
	names string
}

const kindShift = 12

// dirSpan is where a directory's names are.
type dirSpan struct{ first, count, subdirs uint32 }

// links are the symlinks: target text and blob.
type links struct {
	start []uint32 // start in text; one more at the end
	blob  []uint32
	text  string
}

func newRows(n int) rows {
	return rows{
		parent: make([]uint32, n),
		name:   make([]uint32, n+1),
		meta:   make([]uint16, n),
		ref:    make([]uint32, n),
	}
}

// explicit returns the index of an explicit row.
func (c *rows) explicit(r Row) (i int, ok bool) {
	return int(r - 1), r >= Root && r <= Row(len(c.parent))
}

func (c *rows) kind(i int) Kind { return Kind(c.meta[i] >> kindShift) }

func (c *rows) text(i int) string { return c.names[c.name[i]:c.name[i+1]] }

// Lookup finds a name in a directory. Names compare as bytes.
func (x *Index) Lookup(dir Row, name string) (Row, bool) {
	i, ok := x.rows.explicit(dir)
	switch {
	case !ok || dir == x.algorithm:
		return x.lookupBlob(dir, name)
	case x.rows.kind(i) != Dir:
		return 0, false
	case dir == Root && name == sigName:
		return x.sigRow()
	}
	span := x.dirs[x.rows.ref[i]]
	low, high := int(span.first), int(span.first+span.count)
	for low < high {
		mid := (low + high) / 2
		switch c := strings.Compare(x.rows.text(mid), name); {
		case c == 0:
			return Row(mid) + 1, true
		case c < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return 0, false
}

// Child returns the i-th name of a directory, counted from 0, in an order that never changes; ok is
// false beyond the last. It costs the same for every i.
func (x *Index) Child(dir Row, i int) (row Row, name string, ok bool) {
	at, ok := x.rows.explicit(dir)
	switch {
	case !ok || dir == x.algorithm:
		return x.childBlob(dir, i)
	case x.rows.kind(at) != Dir || i < 0:
		return 0, "", false
	}
	span := x.dirs[x.rows.ref[at]]
	if i < int(span.count) {
		child := int(span.first) + i
		return Row(child) + 1, x.rows.text(child), true
	}
	if row, ok := x.sigRow(); ok && dir == Root && i == int(span.count) {
		return row, sigName, true
	}
	return 0, "", false
}

// Attr returns what stat(2) needs; ok is false when there is no such row.
func (x *Index) Attr(r Row) (a Attr, ok bool) {
	i, ok := x.rows.explicit(r)
	if !ok {
		return x.attrBlob(r)
	}
	ref := x.rows.ref[i]
	a = Attr{Kind: x.rows.kind(i), Mode: uint32(x.rows.meta[i] & permBits), Nlink: 1}
	switch {
	case r == x.algorithm:
		a.Nlink = 2 + uint32(len(x.blobs.folders))
	case a.Kind == Dir:
		a.Nlink = 2 + x.dirs[ref].subdirs
	case a.Kind == Symlink:
		a.Size = int64(x.links.start[ref+1] - x.links.start[ref])
	case ref == none:
		a.Size = int64(len(x.man.Raw))
	default:
		a.Size = x.blobs.size(ref)
	}
	return a, true
}

// Parent returns the directory of a row, Root for Root, 0 when there is no such row.
func (x *Index) Parent(r Row) Row {
	i, ok := x.rows.explicit(r)
	if !ok {
		return x.parentBlob(r)
	}
	return Row(x.rows.parent[i]) + 1
}

// Link returns the target of a symlink as recorded.
func (x *Index) Link(r Row) (string, bool) {
	i, ok := x.rows.explicit(r)
	if !ok || x.rows.kind(i) != Symlink {
		return "", false
	}
	ref := x.rows.ref[i]
	return x.links.text[x.links.start[ref]:x.links.start[ref+1]], true
}

// Path returns the path of a row in the mount, without a leading slash; "" for Root and for no row.
func (x *Index) Path(r Row) string {
	if i, ok := x.rows.explicit(r); ok && r != Root {
		if r = Row(x.rows.parent[i]) + 1; r == Root {
			return x.rows.text(i)
		}
		return x.Path(r) + "/" + x.rows.text(i)
	}
	return pathBlob(x, r)
}

// Find returns the row of a path in the mount; "" and "/" are Root, one leading and one trailing
// slash are allowed, symlinks are not followed.
func (x *Index) Find(path string) (Row, bool) {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	if path == "" {
		return Root, true
	}
	row, ok := Root, true
	for more := true; more && ok; {
		var name string
		name, path, more = strings.Cut(path, "/")
		row, ok = x.Lookup(row, name)
	}
	return row, ok
}

// Blob returns the digest of a row's content and its size in bytes, -1 while that is not known. ok
// is false for directories, for the manifest and its signature (see Inline), and for symlinks of
// older images, which have no blob.
func (x *Index) Blob(r Row) (d Digest, size int64, ok bool) {
	at := x.blobOf(r)
	if at == none {
		return Digest{}, 0, false
	}
	return x.blobs.digests[at], x.blobs.size(at), true
}

func (x *Index) blobOf(r Row) uint32 {
	i, ok := x.rows.explicit(r)
	if !ok {
		return x.blobRow(r)
	}
	switch ref := x.rows.ref[i]; x.rows.kind(i) {
	case File:
		return ref
	case Symlink:
		return x.links.blob[ref]
	}
	return none
}

// Inline returns the content of the rows that are no blobs: manifest.json and manifest.json.sig.
// The bytes are shared: do not change them.
func (x *Index) Inline(r Row) ([]byte, bool) {
	if i, ok := x.rows.explicit(r); ok {
		return x.man.Raw, x.rows.kind(i) == File && x.rows.ref[i] == none
	}
	row, ok := x.sigRow()
	return x.man.Signature, ok && r == row
}

// SetSize tells the size in bytes of a blob that has no signed one; a later call may correct it.
// Signed sizes stay as they are, and so do unknown digests.
func (x *Index) SetSize(d Digest, n int64) {
	if at, ok := x.blobs.find(d); ok {
		x.bytes.Add(x.blobs.setSize(at, n))
	}
}

// Size returns the size of a blob in bytes, -1 while that is not known; ok is false when the image
// does not name it.
func (x *Index) Size(d Digest) (n int64, ok bool) {
	at, ok := x.blobs.find(d)
	if !ok {
		return 0, false
	}
	return x.blobs.size(at), true
}

// Signed says whether the size of a blob is signed: in the tree, or by the page table.
func (x *Index) Signed(d Digest) bool {
	at, ok := x.blobs.find(d)
	return ok && atomic.LoadInt64(&x.blobs.sizes[at]) >= 0
}

// Blobs lists every reachable blob once with its size in bytes (-1 while that is not known), in the
// order of the image: top-level ones, then as tree entries name them (also those that a later entry
// of the same path hides), then pages. That is the order in which the reference tool pushes them.
func (x *Index) Blobs() iter.Seq2[Digest, int64] {
	return func(yield func(Digest, int64) bool) {
		for _, at := range x.blobs.order {
			if !yield(x.blobs.digests[at], x.blobs.size(at)) {
				return
			}
		}
	}
}

// Stats returns what the image holds.
func (x *Index) Stats() Stats {
	s := x.stats
	s.Blobs, s.Bytes = len(x.blobs.digests), x.bytes.Load()
	s.Rows = len(x.rows.parent) + len(x.blobs.folders) + len(x.blobs.digests)
	if _, ok := x.sigRow(); ok {
		s.Rows++
	}
	return s
}

func (s *Stats) count(k Kind) {
	switch k {
	case Dir:
		s.Dirs++
	case File:
		s.Files++
	case Symlink:
		s.Symlinks++
	}
}

// Warnings says what a user should know of a tree that was read, in at most 101 lines: paths that
// occur twice.
func (x *Index) Warnings() []string { return x.warnings }

// Created is the image's created_at, the time of everything in the mount.
func (x *Index) Created() time.Time { return x.man.Created }
