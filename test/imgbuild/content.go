package imgbuild

import (
	"encoding/binary"
	"errors"
	"io"
)

// Content is what a file holds. WriteTo may be called any number of times and writes the same Size
// bytes each time.
type Content interface {
	io.WriterTo
	Size() int64
}

// Bytes is content held in memory.
type Bytes []byte

// Text is Bytes written as a string.
func Text(s string) Bytes { return Bytes(s) }

// Size is the length in bytes.
func (b Bytes) Size() int64 { return int64(len(b)) }

// WriteTo writes all of it.
func (b Bytes) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(b)
	return int64(n), err
}

// patternBlock is the unit of a Pattern: each block names its own place, so that bytes from another
// block, or shifted within one, differ.
const patternBlock = 4096

// patternShift is the number of different fillings; a prime, so that it meets no power of two.
const patternShift = 251

// Pattern is content of any size that costs no memory, compresses about a hundredfold and is
// different at each place and for each seed.
type Pattern struct {
	Seed uint64
	Len  int64
}

var patternBase = func() []byte {
	b := make([]byte, patternBlock+patternShift)
	for i := range b {
		b[i] = byte(i % patternShift)
	}
	return b
}()

// Size is the length in bytes.
func (p Pattern) Size() int64 { return p.Len }

// block fills b, which has patternBlock bytes, with block n.
func (p Pattern) block(b []byte, n int64) {
	copy(b, patternBase[uint64(n)%patternShift:])
	binary.BigEndian.PutUint64(b, uint64(n))
	binary.BigEndian.PutUint64(b[8:], p.Seed)
}

// WriteTo writes all of it in pieces of 256 KiB.
func (p Pattern) WriteTo(w io.Writer) (int64, error) {
	buf := make([]byte, 64*patternBlock)
	var done int64
	for done < p.Len {
		n, err := p.ReadAt(buf, done)
		if err != nil && !errors.Is(err, io.EOF) {
			return done, err
		}
		m, err := w.Write(buf[:n])
		done += int64(m)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// ReadAt is io.ReaderAt, for comparing a part of a file with what it should be.
func (p Pattern) ReadAt(b []byte, off int64) (int, error) {
	var block [patternBlock]byte
	n := 0
	for n < len(b) {
		at := off + int64(n)
		if at >= p.Len {
			return n, io.EOF
		}
		in := at % patternBlock
		if in == 0 && len(b)-n >= patternBlock && p.Len-at >= patternBlock {
			p.block(b[n:n+patternBlock], at/patternBlock)
			n += patternBlock
			continue
		}
		p.block(block[:], at/patternBlock)
		end := min(patternBlock, in+p.Len-at)
		n += copy(b[n:], block[in:end])
	}
	return n, nil
}

// Noise is content that does not compress: a fixed pseudo-random stream for each seed.
type Noise struct {
	Seed uint64
	Len  int64
}

// Size is the length in bytes.
func (n Noise) Size() int64 { return n.Len }

// WriteTo writes all of it.
func (n Noise) WriteTo(w io.Writer) (int64, error) {
	x := n.Seed*2685821657736338717 + 88172645463325252
	buf := make([]byte, 64<<10)
	var done int64
	for done < n.Len {
		for i := 0; i < len(buf); i += 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			binary.LittleEndian.PutUint64(buf[i:], x*2685821657736338717)
		}
		m, err := w.Write(buf[:min(int64(len(buf)), n.Len-done)])
		done += int64(m)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
