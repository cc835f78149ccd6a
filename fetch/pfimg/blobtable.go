package pfimg

import (
	"bytes"
	"encoding/binary"
	"sort"
	"strings"
	"sync/atomic"
)

// Names of the layout that rows are computed for.
const (
	blobsDir       = "blobs"
	blobsAlgorithm = "sha256"
	sigName        = "manifest.json.sig"
)

// blobTable is the blobs sorted by digest, which is all that the names below blobs/sha256 need: 44
// bytes each.
type blobTable struct {
	digests []Digest
	// signed: n. Unknown: -1. Told by SetSize: -2-n. Atomic, since SetSize runs beside readers
	sizes   []int64
	order   []uint32
	start   [257]uint32 // those that begin with byte b are start[b] … start[b+1]-1
	folders []byte      // the <aa> that are not empty
	names   string      // the same in hex, so that a name is a part of it and needs no memory
}

// prefix is the first 8 bytes as a number.
func (d *Digest) prefix() uint64 { return binary.BigEndian.Uint64(d[:8]) }

func (t *blobTable) size(at uint32) int64 {
	if n := atomic.LoadInt64(&t.sizes[at]); n >= -1 {
		return n
	} else {
		return -2 - n
	}
}

// setSize returns by how much the sum of all known sizes grew.
func (t *blobTable) setSize(at uint32, n int64) (grown int64) {
	for n >= 0 && n <= maxSize {
		old := atomic.LoadInt64(&t.sizes[at])
		if old >= 0 {
			break
		}
		if atomic.CompareAndSwapInt64(&t.sizes[at], old, -2-n) {
			if old == -1 {
				return n
			}
			return n - (-2 - old)
		}
	}
	return 0
}

func (t *blobTable) find(d Digest) (at uint32, ok bool) {
	low, high := t.start[d[0]], t.start[int(d[0])+1]
	i := sort.Search(int(high-low),
		func(i int) bool { return bytes.Compare(t.digests[int(low)+i][:], d[:]) >= 0 })
	at = low + uint32(i)
	return at, at < high && t.digests[at] == d
}

// folder returns which <aa> a row is.
func (x *Index) folder(r Row) (i int, ok bool) {
	i = int(r) - len(x.rows.parent) - 1
	return i, i >= 0 && i < len(x.blobs.folders)
}

// blobRow returns which blob a row below blobs/sha256/<aa> is, none for none.
func (x *Index) blobRow(r Row) uint32 {
	first := x.firstBlob()
	if r < first || r >= first+Row(len(x.blobs.digests)) {
		return none
	}
	return uint32(r - first)
}

// firstBlob is the row of the first blob below blobs/sha256.
func (x *Index) firstBlob() Row { return Row(len(x.rows.parent)+len(x.blobs.folders)) + 1 }

// sigRow is the row of manifest.json.sig; ok is false when there is no signature.
func (x *Index) sigRow() (Row, bool) {
	return x.firstBlob() + Row(len(x.blobs.digests)), x.man.Signature != nil
}

// lookupBlob is Lookup for blobs/sha256 and below it.
func (x *Index) lookupBlob(dir Row, name string) (Row, bool) {
	if dir == x.algorithm {
		b, ok := hexByte(name)
		if !ok || x.blobs.start[b] == x.blobs.start[int(b)+1] {
			return 0, false
		}
		return Row(len(x.rows.parent)+bytes.IndexByte(x.blobs.folders, b)) + 1, true
	}
	i, ok := x.folder(dir)
	if !ok {
		return 0, false
	}
	var d Digest
	if len(name) != 2*len(d) {
		return 0, false
	}
	for j := range d {
		if d[j], ok = hexByte(name[2*j : 2*j+2]); !ok {
			return 0, false
		}
	}
	at, ok := x.blobs.find(d)
	return x.firstBlob() + Row(at), ok && d[0] == x.blobs.folders[i]
}

// hexByte reads two lower-case hex digits: names compare as bytes, so upper-case ones are other
// names.
func hexByte(s string) (b byte, ok bool) {
	if len(s) != 2 || s[0]-'A' < 6 || s[1]-'A' < 6 {
		return 0, false
	}
	hi, lo := nibble(s[0]), nibble(s[1])
	return hi<<4 | lo, hi|lo <= 0xf
}

// childBlob is Child for blobs/sha256 and below it.
func (x *Index) childBlob(dir Row, i int) (Row, string, bool) {
	if dir == x.algorithm {
		if i < 0 || i >= len(x.blobs.folders) {
			return 0, "", false
		}
		return Row(len(x.rows.parent)+i) + 1, x.blobs.folderName(i), true
	}
	f, ok := x.folder(dir)
	if !ok {
		return 0, "", false
	}
	aa := x.blobs.folders[f]
	first, end := int(x.blobs.start[aa]), int(x.blobs.start[int(aa)+1])
	if i < 0 || i >= end-first {
		return 0, "", false
	}
	at := first + i
	return x.firstBlob() + Row(at), x.blobs.digests[at].Hex(), true
}

// folderName is the <aa> of a folder.
func (t *blobTable) folderName(i int) string { return t.names[2*i : 2*i+2] }

// attrBlob is Attr for the rows that are computed.
func (x *Index) attrBlob(r Row) (Attr, bool) {
	if _, ok := x.folder(r); ok {
		return Attr{Kind: Dir, Mode: 0o755, Nlink: 2}, true
	}
	if at := x.blobRow(r); at != none {
		return Attr{Kind: File, Mode: 0o444, Size: x.blobs.size(at), Nlink: 1}, true
	}
	if row, ok := x.sigRow(); ok && r == row {
		return Attr{Kind: File, Mode: 0o444, Size: int64(len(x.man.Signature)), Nlink: 1}, true
	}
	return Attr{}, false
}

// parentBlob is Parent for the rows that are computed.
func (x *Index) parentBlob(r Row) Row {
	if _, ok := x.folder(r); ok {
		return x.algorithm
	}
	if at := x.blobRow(r); at != none {
		return Row(len(x.rows.parent)+bytes.IndexByte(x.blobs.folders, x.blobs.digests[at][0])) + 1
	}
	if row, ok := x.sigRow(); ok && r == row {
		return Root
	}
	return 0
}

// pathBlob is Path for the rows that are computed.
func pathBlob(x *Index, r Row) string {
	parts := []string{blobsDir, blobsAlgorithm}
	if f, ok := x.folder(r); ok {
		parts = append(parts, x.blobs.folderName(f))
	} else if at := x.blobRow(r); at != none {
		d := x.blobs.digests[at]
		parts = append(parts, d.Hex()[:2], d.Hex())
	} else if row, ok := x.sigRow(); ok && r == row {
		return sigName
	} else {
		return ""
	}
	return strings.Join(parts, "/")
}
