package pfimg

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"
	"strings"
)

// freeze gives every node its row: breadth first, the names of a directory sorted by their bytes.
// So the children of a directory are neighbours, and rows depend on the names alone, not on the
// order of the entries.
func (b *builder) freeze(m *Manifest) *Index {
	x := &Index{man: *m, warnings: b.warnings()}
	rowOfBlob := x.blobs.fill(b.blobs)
	n := len(b.nodes)
	kids, first := b.children()
	x.rows = newRows(n)
	order, rowOf := make([]uint32, 1, n), make([]uint32, n)
	var names, links strings.Builder
	names.Grow(len(b.names))
	links.Grow(len(b.text))
	for row := range n {
		old := order[row]
		node := b.nodes[old]
		rowOf[old] = uint32(row)
		x.rows.parent[row] = rowOf[node.parent]
		x.rows.name[row] = uint32(names.Len())
		names.Write(b.name(old))
		ref := node.ref
		switch node.kind {
		case Dir:
			ref = uint32(len(x.dirs))
			own := kids[first[old]:first[old+1]]
			x.dirs = append(
				x.dirs,
				dirSpan{
					first:   uint32(len(order)),
					count:   uint32(len(own)),
					subdirs: b.sortNames(own),
				},
			)
			order = append(order, own...)
		case Symlink:
			l := b.links[ref]
			ref = uint32(len(x.links.blob))
			x.links.start = append(x.links.start, uint32(links.Len()))
			x.links.blob = append(x.links.blob, place(l.blob, rowOfBlob))
			links.Write(b.text[l.start : l.start+l.length])
		case File:
			ref = place(ref, rowOfBlob)
		}
		x.rows.ref[row] = ref
		x.rows.meta[row] = node.mode | uint16(node.kind)<<kindShift
		if int(old) >= b.tree.first && int(old) < b.tree.last {
			x.stats.count(node.kind)
		}
	}
	x.rows.name[n] = uint32(names.Len())
	x.rows.names = names.String()
	x.links.start = append(x.links.start, uint32(links.Len()))
	x.links.text = links.String()
	x.dirs = slices.Clip(x.dirs)
	x.links.start, x.links.blob = slices.Clip(x.links.start), slices.Clip(x.links.blob)
	x.algorithm, _ = x.Find(blobsDir + "/" + blobsAlgorithm)
	for _, size := range x.blobs.sizes {
		x.bytes.Add(max(size, 0))
	}
	return x
}

func place(blob uint32, rowOfBlob []uint32) uint32 {
	if blob == none {
		return none
	}
	return rowOfBlob[blob]
}

// children sorts the nodes by their parents: those of p are kids[first[p]:first[p+1]].
func (b *builder) children() (kids, first []uint32) {
	n := len(b.nodes)
	kids, first = make([]uint32, n-1), make([]uint32, n+2)
	for _, node := range b.nodes[1:] {
		first[node.parent+2]++
	}
	for p := 2; p < len(first); p++ {
		first[p] += first[p-1]
	}
	for id, node := range b.nodes[1:] {
		kids[first[node.parent+1]] = uint32(id + 1)
		first[node.parent+1]++
	}
	return kids, first
}

// sortNames sorts nodes of one directory and counts the directories among them.
func (b *builder) sortNames(ids []uint32) (subdirs uint32) {
	less := func(x, y uint32) int { return bytes.Compare(b.name(x), b.name(y)) }
	if !slices.IsSortedFunc(ids, less) {
		slices.SortFunc(ids, less)
	}
	for _, id := range ids {
		if b.nodes[id].kind == Dir {
			subdirs++
		}
	}
	return subdirs
}

// fill sorts the blobs by digest and returns where each went.
func (t *blobTable) fill(b *blobSet) (to []uint32) {
	type key struct {
		prefix uint64 // the first 8 bytes, which decide nearly always without a look at the rest
		id     uint32
	}
	keys := make([]key, len(b.digests))
	for i := range b.digests {
		keys[i] = key{prefix: b.digests[i].prefix(), id: uint32(i)}
	}
	slices.SortFunc(keys, func(x, y key) int {
		if c := cmp.Compare(x.prefix, y.prefix); c != 0 {
			return c
		}
		return bytes.Compare(b.digests[x.id][:], b.digests[y.id][:])
	})
	n := len(keys)
	to = make([]uint32, n)
	t.digests, t.sizes, t.order = make([]Digest, n), make([]int64, n), to
	for at, k := range keys {
		to[k.id] = uint32(at)
		t.digests[at], t.sizes[at] = b.digests[k.id], b.sizes[k.id]
		t.start[int(t.digests[at][0])+1]++
	}
	for aa := range 256 {
		if t.start[aa+1] > 0 {
			t.folders = append(t.folders, byte(aa))
		}
		t.start[aa+1] += t.start[aa]
	}
	t.names = hex.EncodeToString(t.folders)
	return to
}
