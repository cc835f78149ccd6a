package disk

import (
	"context"
	"crypto/sha256"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// checker checks blobs and bounds the work of hashing.
type checker struct {
	d     *Dir
	seen  *seen
	turns chan []byte // each with a buffer
}

const (
	hashers    = 8
	hashBuffer = 1 << 20
)

func newChecker(d *Dir) *checker {
	c := &checker{d: d, seen: newSeen(), turns: make(chan []byte, hashers)}
	for range hashers {
		c.turns <- nil
	}
	return c
}

// look opens the blob's file and checks it. Without an error, no blob means that there is none, or
// that it was damaged and is gone now. ErrSize means that the blob is sound and the caller's size
// is not.
func (c *checker) look(
	ctx context.Context, f *layout.Folder, key digest, size int64,
) (*Blob, error) {
	fd, err := f.OpenBlob(ctx, layout.BlobPath(key))
	switch err {
	case nil:
	case unix.ENOENT:
		return nil, nil
	case unix.ELOOP, unix.ENOTDIR, unix.ENXIO, unix.EACCES, unix.EXDEV:
		// A symlink, a socket, a mode that is not ours.
		c.drop(ctx, f, key, 0, "not a file of this cache")
		return nil, nil
	default:
		return nil, layout.OnDisk("open blob", err)
	}
	b, err := c.inspect(ctx, f, fd, key, size)
	if err == nil {
		return b, nil
	}
	var st unix.Stat_t
	_ = unix.Fstat(fd, &st)
	_ = unix.Close(fd)
	if d, ok := err.(damage); ok {
		c.drop(ctx, f, key, st.Ino, string(d))
		return nil, nil
	}
	return nil, err
}

// damage says what is wrong with a blob's file.
type damage string

func (d damage) Error() string { return string(d) }

// inspect makes a blob of an open file when it passes the checks of the mode.
func (c *checker) inspect(
	ctx context.Context, f *layout.Folder, fd int, key digest, size int64,
) (*Blob, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, layout.OnDisk("stat blob", err)
	}
	if !ours(&st) {
		return nil, damage("not a regular file of this user")
	}
	b := newBlob(c.d, fd, key, &st)
	fits := size < 0 || size == st.Size
	good := layout.IsExact(key, &st)
	whole := !good || !fits || c.d.opt.Verify == VerifyAlways || !c.seen.has(key, st.Ino, allChunks)
	if st.Size > c.d.lim.Small && good {
		b.sums = c.loadSums(ctx, f, key, st.Size)
		whole = b.sums == nil
	}
	if whole {
		sums, err := c.hashFile(ctx, fd, key, st.Size)
		if err != nil {
			return nil, err
		}
		c.seen.add(key, st.Ino, allChunks)
		if st.Size > c.d.lim.Small {
			c.repairSums(ctx, f, key, st.Size, sums)
			b.sums = sums
		}
		if !good { // sound all the same: restored from a backup, say
			_ = unix.Fchmod(fd, 0o400)
			_ = layout.SetTimes(fd, time.Time{}, layout.Stamp(key))
		}
	}
	if !fits {
		return nil, SizeError(key, size, st.Size)
	}
	b.Touch(time.Now())
	return b, nil
}

// ours says whether a file can be a blob: regular and this user's.
func ours(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == os.Geteuid()
}

// hashFile checks the whole content of a file against key and returns the sums of its chunks on the
// way.
func (c *checker) hashFile(
	ctx context.Context, fd int, key digest, size int64,
) (sums []byte, err error) {
	buf, done := c.buffer(size)
	defer done()
	h := sha256.New()
	var parts *layout.Summer
	if size > c.d.lim.Small {
		parts = layout.NewSummer(c.d.lim.Chunk)
	}
	for off := int64(0); off < size; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := layout.ReadFull(fd, buf[:min(int64(len(buf)), size-off)], off)
		if err != nil {
			return nil, damage("read: " + err.Error())
		}
		if n == 0 {
			return nil, damage("shorter than it was")
		}
		h.Write(buf[:n])
		parts.Write(buf[:n])
		off += int64(n)
	}
	if digest(h.Sum(nil)) != key {
		return nil, damage("content does not match its digest")
	}
	return parts.Finish(), nil
}

// drop removes a damaged blob, unless its name leads to another file by now (ino; 0: whatever is
// there), and takes it out of the table.
func (c *checker) drop(ctx context.Context, f *layout.Folder, key digest, ino uint64, why string) {
	c.d.count.damaged.Add(1)
	name := layout.BlobName(key)
	c.d.opt.Log.Debug("damaged blob", "digest", "sha256:"+name, "cause", why)
	c.d.warn.warn("a damaged blob is dropped from the cache", // a power cut makes thousands
		"digest", "sha256:"+name, "cause", why)
	aa := layout.ShardName(key[0])
	dir, err := f.OpenShard(ctx, aa)
	if layout.NotDir(err) { // the directory itself is a symlink: the link goes, nothing beyond it
		_ = layout.Remove(f.Blobs, aa)
		return
	}
	if err != nil {
		return
	}
	defer unix.Close(dir)
	c.d.lim.pause("drop")
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || ino != 0 && st.Ino != ino {
		return
	}
	if layout.Remove(dir, name) == nil { // its bytes stay in the usage number until the next count
		_ = layout.Remove(dir, name+layout.SumsSuffix)
	}
}

// buffer waits for a turn to hash and returns what to read into. Turns bound memory and leave the
// cores to others.
func (c *checker) buffer(size int64) (buf []byte, done func()) {
	buf = <-c.turns
	if int64(len(buf)) < min(size, hashBuffer) {
		n := hashBuffer
		if size <= 64<<10 && len(buf) == 0 {
			n = 64 << 10
		}
		buf = make([]byte, n)
	}
	return buf, func() { c.turns <- buf }
}
