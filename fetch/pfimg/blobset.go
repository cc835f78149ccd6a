package pfimg

import "hash/maphash"

// none stands for "no blob", "no node".
const none = ^uint32(0)

// blobSet numbers the blobs of an image in the order in which they are first named, while it is
// read. It is an open-addressing hash over one slice, so a blob costs no Go object. The seed is
// random: digests in hostile data are chosen, not computed.
type blobSet struct {
	seed    maphash.Seed
	slots   []uint32 // number + 1, 0 for free; a power of two, at most half full
	digests []Digest
	sizes   []int64  // signed decoded bytes, -1 while unknown
	owners  []uint32 // the node that said the size
}

func newBlobSet() *blobSet {
	return &blobSet{seed: maphash.MakeSeed(), slots: make([]uint32, 64)}
}

// add returns the number of d, a new one if need be.
func (b *blobSet) add(d Digest) uint32 {
	if 2*len(b.digests) >= len(b.slots) {
		b.slots = make([]uint32, 2*len(b.slots))
		for id := range b.digests {
			b.slots[b.slot(b.digests[id])] = uint32(id) + 1
		}
	}
	at := b.slot(d)
	if id := b.slots[at]; id != 0 {
		return id - 1
	}
	b.digests = append(b.digests, d)
	b.sizes = append(b.sizes, -1)
	b.owners = append(b.owners, none)
	b.slots[at] = uint32(len(b.digests))
	return uint32(len(b.digests) - 1)
}

// slot finds where d is or would be.
func (b *blobSet) slot(d Digest) int {
	mask := len(b.slots) - 1
	for at := int(maphash.Bytes(b.seed, d[:])) & mask; ; at = (at + 1) & mask {
		if id := b.slots[at]; id == 0 || b.digests[id-1] == d {
			return at
		}
	}
}

// sign notes that the node owner gives the blob a size. ok is false when another node gave it
// another one.
func (b *blobSet) sign(id uint32, size int64, owner uint32) (ok bool) {
	if b.sizes[id] < 0 {
		b.sizes[id], b.owners[id] = size, owner
	}
	return b.sizes[id] == size
}
