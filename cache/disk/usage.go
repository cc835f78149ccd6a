package disk

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// usageLock is the usage number while it is locked.
type usageLock struct {
	q     *quota
	fd    int
	n     int64  // bytes on disk, never less than there are
	known bool   // n can be believed; else the file is missing or garbage
	boot  string // the boot in which n was last counted
}

// lockUsage locks the usage number. It is held for a few system calls at a time.
func (q *quota) lockUsage(ctx context.Context, f *layout.Folder) (*usageLock, error) {
	select {
	case <-q.token:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var st unix.Stat_t
	fd, err := q.flockUsage(ctx, f, &st)
	if err != nil {
		q.token <- struct{}{}
		return nil, layout.OnDisk("lock usage", err)
	}
	u := &usageLock{q: q, fd: fd}
	var buf [layout.UsageSize]byte // a longer file is as good: what counts is at its start
	n, err := layout.ReadFull(fd, buf[:], 0)
	if err != nil {
		u.unlock()
		return nil, layout.OnDisk("read usage", err)
	}
	u.n, u.boot, u.known = layout.ParseUsage(string(buf[:n]))
	if u.known = u.known && layout.Agrees(&st, u.n); !u.known {
		u.n = 0
	}
	return u, nil
}

// flockUsage locks the file that is at the path now: the open one may have been deleted.
func (q *quota) flockUsage(ctx context.Context, f *layout.Folder, st *unix.Stat_t) (int, error) {
	wait := layout.Backoff{Limit: q.d.lim.WaitLimit}
	for {
		ok, err := layout.TryLock(f.Usage)
		if err != nil {
			return -1, err
		}
		if !ok {
			if err := wait.Wait(ctx); err != nil {
				return -1, err
			}
			continue
		}
		if err := unix.Fstat(f.Usage, st); err != nil || st.Nlink > 0 {
			return f.Usage, err
		}
		fd, err := layout.OpenState(f.Root, "usage")
		if err != nil {
			_ = unix.Flock(f.Usage, unix.LOCK_UN)
			return -1, err
		}
		_ = unix.Close(f.Usage)
		f.Usage = fd
	}
}

// set writes the number.
func (u *usageLock) set(n int64) error {
	err := layout.WriteUsage(u.fd, n, u.boot)
	// Garbage may have been longer. A process that dies on the way leaves the number all the same.
	if err == nil && !u.known {
		if err = unix.Ftruncate(u.fd, layout.UsageSize); err == nil {
			err = layout.SetTimes(u.fd, time.Time{}, layout.UsageTime(max(n, 0)))
		}
	}
	if err != nil {
		return layout.OnDisk("write usage", err)
	}
	u.n, u.known = n, true
	return nil
}

func (u *usageLock) unlock() {
	_ = unix.Flock(u.fd, unix.LOCK_UN)
	u.q.token <- struct{}{}
}

func (q *quota) readUsage(ctx context.Context, f *layout.Folder) (n int64, known bool, err error) {
	u, err := q.lockUsage(ctx, f)
	if err != nil {
		return 0, false, err
	}
	defer u.unlock()
	return u.n, u.known, nil
}

// readGrowing reads the usage number and, under the same lock, how much of it is of partial files.
// A file gets its name and loses that mark under the lock, too: one that is not seen here is seen
// by the scan that follows. The number is 0 when it is not known: a Store that has just made the
// folder may start it.
func (q *quota) readGrowing(ctx context.Context, f *layout.Folder) (n, growing int64, err error) {
	u, err := q.lockUsage(ctx, f)
	if err != nil {
		return 0, 0, err
	}
	defer u.unlock()
	names, err := layout.DirNames(f.Tmp, -1)
	if err != nil && !layout.Vanished(err) {
		return 0, 0, layout.OnDisk("read tmp", err)
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(f.Tmp, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&0o7777 == growingMode {
			growing += wholeBlocks(st.Size) + layout.BlockSize
		}
	}
	return u.n, growing, nil
}
