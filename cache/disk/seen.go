package disk

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
)

// seen remembers what was hashed in this process.
type seen struct {
	seed  maphash.Seed
	slots []atomic.Uint64
}

const (
	allChunks = -1      // the whole blob
	seenSlots = 1 << 18 // 2 MiB; what is overwritten is hashed once more, nothing else
	seenWays  = 4
)

func newSeen() *seen {
	return &seen{seed: maphash.MakeSeed(), slots: make([]atomic.Uint64, seenSlots)}
}

// print is the fingerprint of one checked chunk of one file. Its seed is this process's own.
func (s *seen) print(key digest, ino uint64, chunk int64) uint64 {
	var b [48]byte
	copy(b[:], key[:])
	binary.LittleEndian.PutUint64(b[32:], ino)
	binary.LittleEndian.PutUint64(b[40:], uint64(chunk))
	return maphash.Bytes(s.seed, b[:]) | 1 // never 0, which is an empty slot
}

func (s *seen) has(key digest, ino uint64, chunk int64) bool {
	p := s.print(key, ino, chunk)
	for way := range uint64(seenWays) {
		if s.slots[(p>>1+way)%seenSlots].Load() == p {
			return true
		}
	}
	return false
}

func (s *seen) add(key digest, ino uint64, chunk int64) {
	p := s.print(key, ino, chunk)
	for way := range uint64(seenWays) {
		slot := &s.slots[(p>>1+way)%seenSlots]
		if old := slot.Load(); old == p || slot.CompareAndSwap(0, p) {
			return
		}
	}
	s.slots[(p>>1+p>>40%seenWays)%seenSlots].Store(p)
}
