package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// look opens the blob's file and checks it. Without an error, no blob means that there is none, or that it was
// damaged and is gone now. ErrSize means that the blob is sound and the caller's size is not.
func (s *Store) look(ctx context.Context, f *folder, key digest, size int64) (*blob, error) {
	fd, err := s.openBlob(ctx, f, blobPath(key))
	switch err {
	case nil:
	case unix.ENOENT:
		return nil, nil
	case unix.ELOOP, unix.ENOTDIR, unix.ENXIO, unix.EACCES, unix.EXDEV: // a symlink, a socket, a mode that is not ours
		s.drop(ctx, f, key, 0, "not a file of this cache")
		return nil, nil
	default:
		return nil, diskError("open blob", err)
	}
	b, err := s.inspect(ctx, f, fd, key, size)
	if err == nil {
		return b, nil
	}
	var st unix.Stat_t
	_ = unix.Fstat(fd, &st)
	_ = unix.Close(fd)
	if d, ok := err.(damage); ok {
		s.drop(ctx, f, key, st.Ino, string(d))
		return nil, nil
	}
	return nil, err
}

// damage says what is wrong with a blob's file.
type damage string

func (d damage) Error() string { return string(d) }

// inspect makes a blob of an open file when it passes the checks of the mode.
func (s *Store) inspect(ctx context.Context, f *folder, fd int, key digest, size int64) (*blob, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, diskError("stat blob", err)
	}
	if !s.ours(&st) {
		return nil, damage("not a regular file of this user")
	}
	b := &blob{fd: fd, ino: st.Ino, size: st.Size, touched: atime(&st)}
	fits := size < 0 || size == st.Size
	good := exact(key, &st)
	whole := !good || !fits || s.opt.Verify == VerifyAlways || !s.check.seen(key, st.Ino, allChunks)
	if st.Size > s.lim.small && good {
		b.sums = s.loadSums(ctx, f, key, st.Size)
		whole = b.sums == nil
	}
	if whole {
		sums, err := s.hashFile(ctx, fd, key, st.Size)
		if err != nil {
			return nil, err
		}
		s.check.add(key, st.Ino, allChunks)
		if st.Size > s.lim.small {
			s.repairSums(ctx, f, key, st.Size, sums)
			b.sums = sums
		}
		if !good { // sound all the same: restored from a backup, say
			_ = unix.Fchmod(fd, 0o400)
			_ = setTimes(fd, time.Time{}, stamp(key))
		}
	}
	if !fits {
		return nil, sizeError(key, size, st.Size)
	}
	if now := time.Now(); now.Sub(b.touched) > s.lim.touch {
		_ = setTimes(fd, now, time.Time{}) // on a read-only disk nothing is evicted either
		b.touched = now
	}
	return b, nil
}

// ours says whether a file can be a blob: regular and this user's.
func (s *Store) ours(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == s.disk.uid
}

// exact says whether mode and mtime are those that a fill gave the file.
func exact(key digest, st *unix.Stat_t) bool {
	if st.Mode&0o7777 != 0o400 {
		return false
	}
	want := stamp(key)
	if int64(st.Mtim.Sec) != want.Unix() {
		return false
	}
	nsec := int64(st.Mtim.Nsec)
	return nsec == 0 || nsec == int64(want.Nanosecond())
}

// stamp is the mtime of key's file: a moment between 2000 and 2017 that only this key has, so that a later write, a
// truncation or another blob's file shows. Seconds alone identify it well enough where the file system keeps no more;
// they are even for FAT.
func stamp(key digest) time.Time {
	sec := 946684800 + 2*int64(binary.BigEndian.Uint32(key[0:4])>>4)
	nsec := 2 + 2*int64(binary.BigEndian.Uint32(key[4:8])%499_999_990)
	return time.Unix(sec, nsec)
}

// hashFile checks the whole content of a file against key and returns the sums of its chunks on the way.
func (s *Store) hashFile(ctx context.Context, fd int, key digest, size int64) (sums []byte, err error) {
	buf, done := s.check.buffer(size)
	defer done()
	h := sha256.New()
	var parts *summer
	if size > s.lim.small {
		parts = newSummer(s.lim.chunk)
	}
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := preadFull(fd, buf[:min(int64(len(buf)), size-off)], off)
		if err != nil {
			return nil, damage("read: " + err.Error())
		}
		if n == 0 {
			return nil, damage("shorter than it was")
		}
		h.Write(buf[:n])
		parts.write(buf[:n])
		off += int64(n)
	}
	if digest(h.Sum(nil)) != key {
		return nil, damage("content does not match its digest")
	}
	return parts.finish(), nil
}

// drop removes a damaged blob, unless its name leads to another file by now (ino; 0: whatever is there), and takes
// it out of the table.
func (s *Store) drop(ctx context.Context, f *folder, key digest, ino uint64, why string) {
	s.count.damaged.Add(1)
	name := blobName(key)
	s.opt.Log.Debug("damaged blob", "digest", "sha256:"+name, "cause", why)
	s.warn.warn("a damaged blob is dropped from the cache", "digest", "sha256:"+name, "cause", why) // a power cut makes thousands
	aa := shardName(key[0])
	dir, err := s.openShard(ctx, f, aa)
	if notDir(err) { // the directory itself is a symlink: the link goes, nothing beyond it
		_ = remove(f.blobs, aa)
		return
	}
	if err != nil {
		return
	}
	defer unix.Close(dir)
	s.lim.pause("drop")
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || ino != 0 && st.Ino != ino {
		return
	}
	if remove(dir, name) == nil { // its bytes stay in the usage number until the next count
		_ = remove(dir, name+sumsSuffix)
	}
}

// checker remembers what was hashed in this process and bounds the work of hashing.
type checker struct {
	seed  maphash.Seed
	slots []atomic.Uint64
	sem   chan []byte // the buffers of those who hash
}

const (
	allChunks  = -1      // the whole blob
	seenSlots  = 1 << 18 // 2 MiB; what is overwritten is hashed once more, nothing else
	seenWays   = 4
	hashers    = 8
	hashBuffer = 1 << 20
)

func newChecker() *checker {
	c := &checker{seed: maphash.MakeSeed(), slots: make([]atomic.Uint64, seenSlots), sem: make(chan []byte, hashers)}
	for range hashers {
		c.sem <- nil
	}
	return c
}

// print is the fingerprint of one checked chunk of one file. Its seed is this process's own.
func (c *checker) print(key digest, ino uint64, chunk int64) uint64 {
	var b [48]byte
	copy(b[:], key[:])
	binary.LittleEndian.PutUint64(b[32:], ino)
	binary.LittleEndian.PutUint64(b[40:], uint64(chunk))
	return maphash.Bytes(c.seed, b[:]) | 1 // never 0, which is an empty slot
}

func (c *checker) seen(key digest, ino uint64, chunk int64) bool {
	p := c.print(key, ino, chunk)
	for way := range uint64(seenWays) {
		if c.slots[(p>>1+way)%seenSlots].Load() == p {
			return true
		}
	}
	return false
}

func (c *checker) add(key digest, ino uint64, chunk int64) {
	p := c.print(key, ino, chunk)
	for way := range uint64(seenWays) {
		slot := &c.slots[(p>>1+way)%seenSlots]
		if old := slot.Load(); old == p || slot.CompareAndSwap(0, p) {
			return
		}
	}
	c.slots[(p>>1+p>>40%seenWays)%seenSlots].Store(p)
}

// buffer waits for a turn to hash and returns what to read into. Turns bound memory and leave the cores to others.
func (c *checker) buffer(size int64) (buf []byte, done func()) {
	buf = <-c.sem
	if int64(len(buf)) < min(size, hashBuffer) {
		n := hashBuffer
		if size <= 64<<10 && len(buf) == 0 {
			n = 64 << 10
		}
		buf = make([]byte, n)
	}
	return buf, func() { c.sem <- buf }
}
