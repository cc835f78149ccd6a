package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// A sidecar holds a sum of each chunk of a large blob, so that a read of 4 KiB does not hash 50 GB. It is there to notice
// what a disk does to a file: bits that rot, writes that were torn or went elsewhere. Who may write the folder could write
// a sidecar to match, whatever the sum, so it need not be a cryptographic one: XXH64 misses one damage in 2^64, at a
// twentieth of the time of SHA-256, which is taken of the whole blob before it gets its name.
//
//	8 bytes    "pfsums2\n"
//	8          chunk size, big endian as all numbers
//	8          blob size
//	32         the blob's key
//	8 each     the sums, one a chunk, the last chunk may be short
//	32         SHA-256 of all the above
const (
	sumsMagic  = "pfsums2\n"
	sumsHeader = 8 + 8 + 8 + 32
	sumSize    = 8 // of one chunk
)

func chunksOf(size int64, chunk int) int64 { return (size + int64(chunk) - 1) / int64(chunk) }

// sumsSize is the length of the sidecar of a blob.
func sumsSize(size int64, chunk int) int64 {
	return sumsHeader + sumSize*chunksOf(size, chunk) + sha256.Size
}

func encodeSums(key digest, size int64, chunk int, sums []byte) []byte {
	out := make([]byte, 0, sumsHeader+len(sums)+sha256.Size)
	out = append(out, sumsMagic...)
	out = binary.BigEndian.AppendUint64(out, uint64(chunk))
	out = binary.BigEndian.AppendUint64(out, uint64(size))
	out = append(out, key[:]...)
	out = append(out, sums...)
	self := sha256.Sum256(out)
	return append(out, self[:]...)
}

// decodeSums returns the sums of a sidecar, nil when it is not exactly that of this blob.
func decodeSums(data []byte, key digest, size int64, chunk int) []byte {
	if int64(len(data)) != sumsSize(size, chunk) {
		return nil
	}
	body, self := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	sums := body[sumsHeader:]
	if sha256.Sum256(body) != digest(self) || !bytes.Equal(encodeSums(key, size, chunk, nil)[:sumsHeader], body[:sumsHeader]) {
		return nil
	}
	return sums
}

// loadSums reads a blob's sidecar. Any trouble is nil: the blob is then hashed whole.
func (s *Store) loadSums(ctx context.Context, f *folder, key digest, size int64) []byte {
	fd, err := s.openBlob(ctx, f, blobPath(key)+sumsSuffix)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || !s.ours(&st) || st.Size != sumsSize(size, s.lim.chunk) {
		return nil
	}
	data := make([]byte, st.Size) // a blob that is really there bounds it: 8 bytes a chunk
	if n, err := preadFull(fd, data, 0); err != nil || n < len(data) {
		return nil
	}
	return decodeSums(data, key, size, s.lim.chunk)
}

// writeSums puts a sidecar, as encodeSums makes it, beside its blob, whole or not at all.
func (s *Store) writeSums(ctx context.Context, f *folder, dir int, key digest, data []byte) error {
	name := blobName(key) + sumsSuffix
	fd, tmp, err := s.newTmp(ctx, f, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = pwriteFull(fd, data, 0)
	if err == nil {
		err = unix.Renameat(f.tmp, tmp, dir, name)
	}
	if err != nil {
		_ = remove(f.tmp, tmp)
	}
	return diskError("write sidecar", err)
}

// repairSums writes a sidecar that was missing or damaged. It is a help, so trouble is no error.
func (s *Store) repairSums(ctx context.Context, f *folder, key digest, size int64, sums []byte) {
	dir, err := s.openShard(ctx, f, shardName(key[0]))
	if err != nil {
		return
	}
	defer unix.Close(dir)
	data := encodeSums(key, size, s.lim.chunk, sums)
	_, _ = s.reserve(ctx, f, diskCost(int64(len(data))), func() error {
		return s.writeSums(ctx, f, dir, key, data)
	})
}

// diskCost is the least that a file of n bytes is taken to use.
func diskCost(n int64) int64 {
	return (n+blockSize-1)/blockSize*blockSize + nameCost
}

// sumMatches says whether p is what the sum of chunk i was made of.
func sumMatches(p, sums []byte, i int64) bool {
	return xxhash.Sum64(p) == binary.BigEndian.Uint64(sums[i*sumSize:])
}

// summer hashes a stream chunk by chunk. A nil summer does nothing.
type summer struct {
	h     *xxhash.Digest
	chunk int
	in    int // bytes of the current chunk
	sums  []byte
}

func newSummer(chunk int) *summer { return &summer{h: xxhash.New(), chunk: chunk} }

func (m *summer) write(p []byte) {
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

func (m *summer) cut() {
	m.sums = m.h.Sum(m.sums)
	m.h.Reset()
	m.in = 0
}

func (m *summer) reset() {
	if m != nil {
		m.h.Reset()
		m.in, m.sums = 0, m.sums[:0]
	}
}

// finish returns the sums of what was written.
func (m *summer) finish() []byte {
	if m == nil {
		return nil
	}
	if m.in > 0 {
		m.cut()
	}
	return m.sums
}
