package disk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// Partial is a claimed file: this process alone fills its key. It is not safe for concurrent use.
type Partial struct {
	d    *Dir
	f    *layout.Folder // held until Publish or Abandon
	key  digest
	name string // its key's
	fd   int
	ctx  context.Context // of Claim; a wait for room on the disk ends with it

	size  int64 // what is expected, -1 unknown
	off   int64 // bytes written
	taken int64 // of these and more bytes the room was taken ahead; size -1 only
	sums  *layout.Summer
}

// claim makes this process the only one that fills key, by the lock on tmp/<hex>, and returns that
// file; or it returns the blob that another process has filled meanwhile. A dead holder's file is
// removed and started over.
func claim(
	ctx context.Context, d *Dir, f *layout.Folder, key digest, size int64,
) (p *Partial, b *Blob, err error) {
	name := layout.BlobName(key)
	for {
		d.lim.pause("claim")
		fd, err := f.OpenAt(ctx, f.Tmp, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o400)
		if err == unix.EEXIST {
			if err := await(ctx, d, f, key); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err != nil {
			return nil, nil, layout.OnDisk("create partial file", err)
		}
		d.lim.pause("lock")
		ok, err := layout.LockNew(fd)
		if err != nil {
			err = layout.OnDisk("lock partial file", err)
		} else if ok {
			d.lim.pause("look again")
			// It may have been finished before this file was made.
			b, err = d.check.look(ctx, f, key, size)
			if b == nil && err == nil {
				p = &Partial{d: d, f: f, key: key, name: name, fd: fd, ctx: ctx, size: size}
				if size < 0 || size > d.lim.Small {
					p.sums = layout.NewSummer(d.lim.Chunk)
				}
				return p, nil, nil
			}
			_ = layout.Remove(f.Tmp, name)
		}
		_ = unix.Close(fd)
		if b != nil || err != nil {
			return nil, b, err
		}
	}
}

// failedMode marks an unlinked partial file whose fill failed: its content is then the error's
// text.
const failedMode = 0o200

// await returns when the holder of key's partial file has finished, failed or died; the file is
// gone then. A fill that failed after this process waited for it for long is not tried again here:
// N processes in turn would make N times the wait. After a short wait it is, since the other
// process may have lacked only credentials. A holder that does not move, such as one that was
// stopped by Ctrl-Z, is an error as of the disk: the caller goes on without the cache.
func await(ctx context.Context, d *Dir, f *layout.Folder, key digest) error {
	name := layout.BlobName(key)
	fd, err := f.OpenAt(ctx, f.Tmp, name, unix.O_RDONLY, 0o400)
	if layout.NotPartial(err) {
		err = layout.ErrOr(layout.Remove(f.Tmp, name), unix.ENOENT)
	}
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return layout.OnDisk("open partial file", err)
	}
	defer unix.Close(fd)
	var wait layout.Backoff
	var moved time.Duration // when the file was seen to be written last
	for last := (unix.Timespec{}); ; {
		ok, err := layout.TryLock(fd)
		if err != nil {
			return layout.OnDisk("lock partial file", err)
		}
		if ok {
			break
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mtim != last {
			last, moved = st.Mtim, wait.Waited
		}
		if wait.Waited-moved >= d.lim.Stopped {
			return layout.OnDisk("wait for another process, which holds the partial file and "+
				"writes nothing", layout.ErrBusy)
		}
	}
	same, err := layout.IsCurrent(fd, f.Tmp, name)
	if err != nil {
		return layout.OnDisk("stat partial file", err)
	}
	if same { // its holder died
		return layout.OnDisk("remove partial file", layout.Remove(f.Tmp, name))
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Nlink == 0 && st.Mode&0o777 == failedMode &&
		wait.Waited >= d.lim.WaitLimit {
		var text [512]byte
		n, _ := layout.ReadFull(fd, text[:], 0)
		return fmt.Errorf("cache: blob %x: %w: %s", key, ErrElsewhere, text[:n])
	}
	return nil
}

// Write appends b. A full disk is answered by one eviction, unless room was to be made before.
func (p *Partial) Write(b []byte) (int, error) {
	if err := p.room(len(b)); err != nil {
		return 0, err
	}
	n, err := layout.WriteFull(p.fd, b, p.off)
	if layout.Full(err) && p.size >= 0 && p.d.quota.makeRoom(p.ctx, p.f, max(p.size-p.off, 1<<20)) {
		var more int
		more, err = layout.WriteFull(p.fd, b[n:], p.off+int64(n))
		n += more
	}
	if err != nil {
		return 0, layout.OnDisk("write", err)
	}
	p.sums.Write(b)
	p.off += int64(n)
	return n, nil
}

// Written returns how many bytes were written since the last Reset.
func (p *Partial) Written() int64 { return p.off }

// ReadFull reads the first len(b) bytes of what was written.
func (p *Partial) ReadFull(b []byte) error {
	n, err := layout.ReadFull(p.fd, b, 0)
	if err == nil && n < len(b) {
		err = unix.EIO
	}
	return layout.OnDisk("read partial file", err)
}

// Reset drops what was written, so that the fill starts over.
func (p *Partial) Reset() error {
	p.sums.Reset()
	if p.off == 0 {
		return nil
	}
	p.off = 0
	if p.taken > 0 {
		return nil // the room stays taken, and is written anew
	}
	return layout.OnDisk("truncate", unix.Ftruncate(p.fd, 0))
}

// Abandon gives up the file. A failure is left to the processes that wait with the file open; a
// fill that only ended with its process, or because no reader waited, is theirs to start over, as
// is one without a failure. The name goes first: a kill in between leaves no name with the mode of
// a failed file, which its owner may not open.
func (p *Partial) Abandon(failed error) {
	err := layout.Remove(p.f.Tmp, p.name) // a folder that is gone has no such name
	given := errors.Is(failed, context.Canceled) || errors.Is(failed, ErrUnwanted)
	if err == nil && failed != nil && !given {
		text := failed.Error()
		err = unix.Ftruncate(p.fd, 0)
		if err == nil {
			_, err = layout.WriteFull(p.fd, []byte(text[:min(len(text), 512)]), 0)
		}
		if err == nil {
			_ = unix.Fchmod(p.fd, failedMode)
		}
	}
	_ = unix.Close(p.fd)
	p.d.done(p.f)
}
