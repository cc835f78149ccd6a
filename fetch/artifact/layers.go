package artifact

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"sort"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// maxSize is the largest size that a descriptor may claim, in bytes: 1 PiB. It keeps sums and
// doubled bounds far from overflow.
const maxSize = 1 << 50

// WireDigest is the SHA-256 of stored (compressed) bytes. It has a type of its own so that it
// cannot be mistaken for the digest of a blob's content.
type WireDigest [32]byte

// String returns "sha256:" and lower-case hex.
func (d WireDigest) String() string { return "sha256:" + d.Hex() }

func (d WireDigest) Hex() string { return hex.EncodeToString(d[:]) }

// Descriptor says what the bytes on the wire must be.
type Descriptor struct {
	Wire WireDigest
	Size int64 // bytes; -1: unknown, for a manifest that is asked for by its digest
}

// Layer is where one blob is stored: 80 bytes, since an image of a GPU session has 77,000 of them.
type Layer struct {
	Logical pfimg.Digest // of the decoded bytes, as the layer claims
	Wire    WireDigest   // zero where nothing names the stored bytes (folders and stores)
	Size    int64        // stored bytes
	Decoded int64        // annotated, a hint; -1: unknown
}

// Hashed says whether the stored bytes have a digest of their own.
func (l Layer) Hashed() bool { return l.Wire != WireDigest{} }

// layerTable is sorted by logical digest; layers of one digest keep the manifest's order.
type layerTable []Layer

func (t *layerTable) sort() {
	// Of a layer only this is moved about: to sort them stably in place takes several times as
	// long.
	type key struct {
		prefix uint64
		at     uint32
	}
	keys := make([]key, len(*t))
	for i, l := range *t {
		keys[i] = key{binary.BigEndian.Uint64(l.Logical[:]), uint32(i)}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.prefix != b.prefix {
			return cmp.Compare(a.prefix, b.prefix)
		}
		return cmp.Or(bytes.Compare((*t)[a.at].Logical[:], (*t)[b.at].Logical[:]),
			cmp.Compare(a.at, b.at))
	})
	sorted := make(layerTable, len(keys))
	for i, k := range keys {
		sorted[i] = (*t)[k.at]
	}
	*t = slices.Clip(
		slices.CompactFunc(sorted,
			func(a, b Layer) bool { return a.Logical == b.Logical && a.Wire == b.Wire }),
	)
}

// Find returns the layers that claim a digest, in the manifest's order.
func (t layerTable) Find(d pfimg.Digest) []Layer {
	from := sort.Search(len(t),
		func(i int) bool { return bytes.Compare(t[i].Logical[:], d[:]) >= 0 })
	to := from
	for to < len(t) && t[to].Logical == d {
		to++
	}
	return t[from:to:to]
}

// AddSize adds sizes without overflow.
func AddSize(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
