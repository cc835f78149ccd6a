package disk

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// Blob is a complete blob's file, open for reading. It is safe for concurrent use.
type Blob struct {
	d       *Dir
	fd      int
	key     digest
	ino     uint64
	size    int64
	sums    []byte       // of each chunk, for those that are checked as they are read
	unnamed bool         // the file has no name, on purpose: it goes when it is closed
	touched atomic.Int64 // its atime, in nanoseconds

	mu sync.Mutex // held while a chunk is checked, so that readers of one chunk hash it once
}

func newBlob(d *Dir, fd int, key digest, st *unix.Stat_t) *Blob {
	b := &Blob{d: d, fd: fd, key: key, ino: st.Ino, size: st.Size}
	b.touched.Store(layout.Atime(st).UnixNano())
	return b
}

// Size returns the blob's length in bytes.
func (b *Blob) Size() int64 { return b.size }

// Read reads len(p) bytes at off, all of which the blob has. No byte is returned of a chunk that is
// to be checked and does not match: the error is then ErrDamaged, as it is when fewer bytes are
// there.
func (b *Blob) Read(p []byte, off int64) error {
	if b.sums != nil {
		return b.readChecked(p, off)
	}
	return b.readExact(p, off)
}

// Touch notes that the blob was in use at a time, unless its atime is nearly as young.
func (b *Blob) Touch(used time.Time) {
	if b.unnamed || used.Sub(time.Unix(0, b.touched.Load())) <= b.d.lim.AtimeGrain {
		return
	}
	now := time.Now()
	// A disk that is read-only loses recency, nothing else.
	_ = layout.SetTimes(b.fd, now, time.Time{})
	b.touched.Store(now.UnixNano())
}

// Evicted says that the blob has lost its name, by whatever process.
func (b *Blob) Evicted() bool {
	var st unix.Stat_t
	return !b.unnamed && unix.Fstat(b.fd, &st) == nil && st.Nlink == 0
}

// Close closes the file.
func (b *Blob) Close() {
	_ = unix.Close(b.fd) // nothing was written through it since it was published
}

func (b *Blob) readExact(p []byte, off int64) error {
	n, err := layout.ReadFull(b.fd, p, off)
	if err != nil {
		return badFile(b.key, "read: "+err.Error())
	}
	if n < len(p) {
		return badFile(b.key, "shorter than it was")
	}
	return nil
}

// readChecked reads from a large blob chunk by chunk; each is checked before it is used, once in a
// process.
func (b *Blob) readChecked(p []byte, off int64) error {
	chunk := int64(b.d.lim.Chunk)
	for len(p) > 0 {
		i := off / chunk
		n := min(int64(len(p)), (i+1)*chunk-off)
		var err error
		if b.d.opt.Verify != VerifyAlways && b.trusted(i) {
			err = b.readExact(p[:n], off)
		} else {
			err = b.checkChunk(i, p[:n], off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (b *Blob) trusted(chunk int64) bool {
	return b.d.check.seen.has(b.key, b.ino, chunk) || b.d.check.seen.has(b.key, b.ino, allChunks)
}

// checkChunk hashes chunk i and copies what is wanted of it from the very bytes that were hashed.
func (b *Blob) checkChunk(i int64, p []byte, off int64) error {
	chunk := int64(b.d.lim.Chunk)
	if b.d.opt.Verify != VerifyAlways {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.trusted(i) { // another reader of the chunk was here
			return b.readExact(p, off)
		}
	}
	start := i * chunk
	buf, done := b.d.check.buffer(chunk)
	defer done()
	buf = buf[:min(chunk, b.size-start)]
	if err := b.readExact(buf, start); err != nil {
		return err
	}
	if !layout.SumMatches(buf, b.sums, i) {
		return badFile(b.key, fmt.Sprintf("bytes %d to %d do not match their sum",
			start, start+int64(len(buf))))
	}
	b.d.check.seen.add(b.key, b.ino, i)
	copy(p, buf[off-start:])
	return nil
}
