package layout

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// A sidecar holds a sum of each chunk of a large blob, so that a read of 4 KiB does not hash 50 GB.
// It is there to notice what a disk does to a file: bits that rot, writes that were torn or went
// elsewhere. Write access to the directory is enough to forge a matching sidecar, whatever the sum,
// so it need not be a cryptographic one: XXH64 misses one damage in 2^64, at a twentieth of the
// time of SHA-256, which is taken of the whole blob before it gets its name.
//
//	8 bytes    "pfsums2\n"
//	8          chunk size, big endian as all numbers
//	8          blob size
//	32         the blob's key
//	8 each     the sums, one a chunk, the last chunk may be short
//	32         SHA-256 of all the above
const (
	sumsMagic  = "pfsums2\n"
	SumsHeader = 8 + 8 + 8 + 32
	SumSize    = 8 // of one chunk
)

// ChunksOf returns how many chunks a blob has.
func ChunksOf(size int64, chunk int) int64 { return (size + int64(chunk) - 1) / int64(chunk) }

// SumsSize is the length of the sidecar of a blob.
func SumsSize(size int64, chunk int) int64 {
	return SumsHeader + SumSize*ChunksOf(size, chunk) + sha256.Size
}

// EncodeSums makes the sidecar of a blob.
func EncodeSums(key Key, size int64, chunk int, sums []byte) []byte {
	out := make([]byte, 0, SumsHeader+len(sums)+sha256.Size)
	out = append(out, sumsMagic...)
	out = binary.BigEndian.AppendUint64(out, uint64(chunk))
	out = binary.BigEndian.AppendUint64(out, uint64(size))
	out = append(out, key[:]...)
	out = append(out, sums...)
	self := sha256.Sum256(out)
	return append(out, self[:]...)
}

// DecodeSums returns the sums of a sidecar, nil when it is not exactly that of this blob.
func DecodeSums(data []byte, key Key, size int64, chunk int) []byte {
	if int64(len(data)) != SumsSize(size, chunk) {
		return nil
	}
	body, self := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	sums := body[SumsHeader:]
	header := EncodeSums(key, size, chunk, nil)[:SumsHeader]
	if sha256.Sum256(body) != Key(self) || !bytes.Equal(header, body[:SumsHeader]) {
		return nil
	}
	return sums
}

// SumMatches says whether p is what the sum of chunk i was made of.
func SumMatches(p, sums []byte, i int64) bool {
	return xxhash.Sum64(p) == binary.BigEndian.Uint64(sums[i*SumSize:])
}

// Summer hashes a stream chunk by chunk. A nil summer does nothing.
type Summer struct {
	h     *xxhash.Digest
	chunk int
	in    int // bytes of the current chunk
	sums  []byte
}

// NewSummer returns a Summer for chunks of that many bytes.
func NewSummer(chunk int) *Summer { return &Summer{h: xxhash.New(), chunk: chunk} }

func (m *Summer) Write(p []byte) {
	if m == nil {
		return
	}
	for len(p) > 0 {
		n := min(len(p), m.chunk-m.in)
		m.h.Write(p[:n])
		m.in += n
		p = p[n:]
		if m.in == m.chunk {
			m.cut()
		}
	}
}

func (m *Summer) cut() {
	m.sums = m.h.Sum(m.sums)
	m.h.Reset()
	m.in = 0
}

func (m *Summer) Reset() {
	if m != nil {
		m.h.Reset()
		m.in, m.sums = 0, m.sums[:0]
	}
}

// Finish returns the sums of what was written.
func (m *Summer) Finish() []byte {
	if m == nil {
		return nil
	}
	if m.in > 0 {
		m.cut()
	}
	return m.sums
}
