package pfimg

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"strings"
)

// Kind is what a row is.
type Kind uint8

// The kinds of rows.
const (
	Dir Kind = iota + 1
	File
	Symlink
)

// permBits are the mode bits that are shown: permissions and sticky. Set-id bits are dropped.
const permBits = 0o1777

// node is a name while the image is read. Nodes are numbered as they come; freeze gives them their
// rows.
type node struct {
	parent uint32
	name   uint32 // where it starts in builder.names
	ref    uint32 // File: blob, or none for manifest.json. Symlink: index in builder.links
	mode   uint16
	length uint8
	kind   Kind
}

// link is what a symlink has beside its name.
type link struct{ start, length, blob uint32 }

// builder collects names and blobs. Names are found by an open-addressing hash over (parent, name),
// so a file costs no Go object; the seed is random, since the names are of a foreign hand.
type builder struct {
	seed  maphash.Seed
	slots []uint32 // node + 1, 0 for free; a power of two, at most half full
	nodes []node
	names []byte
	links []link
	text  []byte // of link targets
	blobs *blobSet
	total int64 // bytes of all files and pages so far
	tree  tree
	doubles
}

// doubles counts paths that occur twice, and keeps messages about the first of them.
type doubles struct {
	count int
	said  []string
}

// maxWarnings bounds how many warnings are kept.
const maxWarnings = 100

func newBuilder(maxEntries int) *builder {
	b := &builder{seed: maphash.MakeSeed(), slots: make([]uint32, 256), blobs: newBlobSet()}
	b.nodes = append(b.nodes, node{kind: Dir, mode: 0o755, ref: none})
	b.tree.max = maxEntries
	return b
}

// child returns the node of a name in a directory; a new one has no kind yet.
func (b *builder) child(parent uint32, name []byte) (id uint32, isNew bool) {
	if 2*len(b.nodes) >= len(b.slots) {
		b.slots = make([]uint32, 2*len(b.slots))
		for id := 1; id < len(b.nodes); id++ {
			n := b.nodes[id]
			b.slots[b.slot(n.parent, b.name(uint32(id)))] = uint32(id) + 1
		}
	}
	at := b.slot(parent, name)
	if id := b.slots[at]; id != 0 {
		return id - 1, false
	}
	b.nodes = append(b.nodes,
		node{parent: parent, name: uint32(len(b.names)), length: uint8(len(name)), ref: none})
	b.names = append(b.names, name...)
	b.slots[at] = uint32(len(b.nodes))
	return uint32(len(b.nodes) - 1), true
}

// slot finds where (parent, name) is or would be.
func (b *builder) slot(parent uint32, name []byte) int {
	mask := len(b.slots) - 1
	hash := maphash.Bytes(b.seed, name) ^ uint64(parent)*0x9e3779b97f4a7c15
	for at := int(hash^hash>>32) & mask; ; at = (at + 1) & mask {
		id := b.slots[at]
		if id == 0 || b.nodes[id-1].parent == parent && bytes.Equal(b.name(id-1), name) {
			return at
		}
	}
}

func (b *builder) name(id uint32) []byte {
	n := &b.nodes[id]
	return b.names[n.name : n.name+uint32(n.length)]
}

// path is the path of a node in the mount.
func (b *builder) path(id uint32) string {
	var parts []string
	for ; id != 0; id = b.nodes[id].parent {
		parts = append(parts, string(b.name(id)))
	}
	var path strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		path.WriteString(parts[i])
		if i > 0 {
			path.WriteByte('/')
		}
	}
	return path.String()
}

// dir makes a directory of the image's own layout.
func (b *builder) dir(parent uint32, name string) uint32 {
	id, _ := b.child(parent, []byte(name))
	b.nodes[id].kind, b.nodes[id].mode = Dir, 0o755
	return id
}

// file makes a file of the image's own layout.
func (b *builder) file(parent uint32, name string, blob uint32) uint32 {
	id, _ := b.child(parent, []byte(name))
	b.nodes[id].kind, b.nodes[id].mode, b.nodes[id].ref = File, 0o444, blob
	return id
}

// sized gives the blob of a node its signed size.
func (b *builder) sized(blob uint32, size int64, node uint32) error {
	if b.total += size; b.total > maxTotal { // both are at most 2^60: no overflow
		return fmt.Errorf("%s: more than %d bytes in all: %w", quote(b.path(node)), int64(maxTotal),
			ErrIntegrity)
	}
	if !b.blobs.sign(blob, size, node) {
		return fmt.Errorf("%s has %d bytes in %s and %d in %s: %w", b.blobs.digests[blob],
			b.blobs.sizes[blob], quote(b.path(b.blobs.owners[blob])), size, quote(b.path(node)),
			ErrIntegrity)
	}
	return nil
}

// twice notes that the path of a node occurred again.
func (b *builder) twice(id uint32) {
	if b.count++; b.count <= maxWarnings {
		b.said = append(b.said,
			fmt.Sprintf("%s occurs twice in the tree: the last entry is shown", quote(b.path(id))))
	}
}

// warnings are the messages, with a last one for those that were not kept.
func (d *doubles) warnings() []string {
	if d.count > maxWarnings {
		return append(d.said,
			fmt.Sprintf("%d more paths occur twice in the tree", d.count-maxWarnings))
	}
	return d.said
}

// layout makes the names that every image has, and returns the directory of the pages. Their order
// decides nothing: rows come from the names.
func (b *builder) layout(m *Manifest) (pages uint32) {
	b.file(0, "manifest.json", none)
	b.dir(b.dir(0, blobsDir), blobsAlgorithm)
	world, cache, model := b.dir(0, "world"), b.dir(0, "cache"), b.dir(0, "model")
	b.tree.root = b.dir(world, "fs")
	b.file(world, "env.json", b.blobs.add(m.World.Env))
	b.file(world, "procs.json", b.blobs.add(m.World.Procs))
	b.file(cache, "manifest.json", b.blobs.add(m.Cache.Manifest))
	b.file(model, "base", b.blobs.add(m.Model.Base))
	b.file(model, "diff.json", b.blobs.add(m.Model.Diff))
	b.file(b.dir(0, "effects"), "ledger.jsonl", b.blobs.add(m.Effects.Ledger))
	b.file(b.dir(0, "trace"), "messages.jsonl", b.blobs.add(m.Trace.Messages))
	return b.dir(cache, "pages")
}
