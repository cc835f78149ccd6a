package disk

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// quota keeps the cache folder within its limit, together with the other processes that share it.
type quota struct {
	d         *Dir
	boot      string
	token     chan struct{} // held while folder.usage is used
	evictions atomic.Int64  // rounds finished by this process
	counting  atomic.Bool   // a recount is under way in the background

	mu     sync.Mutex // guards looked and short
	looked time.Time  // when the free space was last asked for
	short  int64      // bytes then missing to the free-space floor
}

func newQuota(d *Dir) *quota {
	q := &quota{d: d, boot: layout.BootID(), token: make(chan struct{}, 1)}
	q.token <- struct{}{}
	return q
}

// reserve adds n bytes to the usage number and then, still under its lock, gives them their name:
// so a count under the lock finds every file that the number holds. It evicts when n does
// not fit; ok false means that nothing helped. A crash between the two leaves the number too high,
// never too low.
func (q *quota) reserve(
	ctx context.Context, f *layout.Folder, n int64, name func() error,
) (ok bool, err error) {
	if n > q.d.opt.Size {
		q.d.warn.warn("a blob is larger than the whole cache may be: "+
			"it is kept only while it is in use",
			"dir", q.d.opt.Dir, "bytes", n, "limit", q.d.opt.Size)
		return false, nil
	}
	if ok, err := q.floor(ctx, f, n); !ok || err != nil {
		return false, err
	}
	for range 4 {
		u, err := q.lockUsage(ctx, f)
		if err != nil {
			return false, err
		}
		if u.known && u.n+n <= q.d.opt.Size {
			if err = u.set(u.n + n); err == nil {
				q.d.lim.pause("name")
				if err = name(); err != nil {
					_ = u.set(u.n - n) // too high is safe
				}
			}
			old := u.boot != q.boot
			u.unlock()
			if old {
				q.recountSoon()
			}
			return err == nil, err
		}
		known := u.known
		u.unlock()
		if !known {
			err = q.recount(ctx, f)
		} else {
			target := min(q.d.opt.Size/10*9, q.d.opt.Size-n)
			_, _, err = q.evict(ctx, f, eviction{
				goal:   func(int64) int64 { return target },
				needed: func(used int64) bool { return used+n > q.d.opt.Size },
			})
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// floor keeps a part of the file system free, evicting for it. It asks the file system at most once
// a second.
func (q *quota) floor(ctx context.Context, f *layout.Folder, n int64) (ok bool, err error) {
	if q.d.opt.MinFree < 0 {
		return true, nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.looked) < time.Second && n < 1<<20 {
		return q.short <= 0, nil
	}
	if err := q.lookFree(f); err != nil {
		return false, err
	}
	if q.short > 0 {
		short := q.short
		goal := func(used int64) int64 { return used - short - short/10 }
		if _, _, err := q.evict(ctx, f, eviction{goal: goal}); err != nil {
			return false, err
		}
		if err := q.lookFree(f); err != nil {
			return false, err
		}
	}
	if q.short > 0 {
		q.d.warn.warn("too little space is free on the cache's disk: "+
			"blobs are kept only while they are in use",
			"dir", q.d.opt.Dir, "missing_bytes", q.short, "min_free", q.d.opt.MinFree)
	}
	return q.short <= 0, nil
}

// lookFree measures how many bytes are missing to the floor. The caller holds quota.mu.
func (q *quota) lookFree(f *layout.Folder) error {
	free, err := q.aboveFloor(f)
	if err != nil {
		return err
	}
	q.looked, q.short = time.Now(), -free
	return nil
}

// aboveFloor returns the free bytes of the file system beyond those that are to stay free; negative
// when too few are.
func (q *quota) aboveFloor(f *layout.Folder) (int64, error) {
	var st unix.Statfs_t
	if err := layout.Restart(func() error { return unix.Fstatfs(f.Root, &st) }); err != nil {
		return 0, layout.OnDisk("statfs", err)
	}
	size := int64(st.Frsize)
	if size == 0 {
		size = int64(st.Bsize)
	}
	return (int64(st.Bavail) - int64(max(q.d.opt.MinFree, 0)*float64(st.Blocks))) * size, nil
}

// measure looks what n bytes more would mean. The caller holds the usage lock.
func (q *quota) measure(f *layout.Folder, u *usageLock, n int64) (want, error) {
	free, err := q.aboveFloor(f)
	if err != nil {
		return want{}, err
	}
	holds := min(q.d.opt.Size, u.n+max(0, free)) // what the cache can hold on this disk
	return want{n: n, over: u.n + n - q.d.opt.Size, short: n - free, stays: holds / 2}, nil
}

// fits fails at once for a large blob that the limit, or the disk were the cache empty, could not
// take: nothing is asked for then, and nothing evicted.
func (q *quota) fits(f *layout.Folder, size int64) error {
	if size <= q.d.lim.Small {
		return nil
	}
	if size > q.d.opt.Size {
		return noRoomf("the blob has %d bytes, the cache may take %d: raise --cache-size",
			size, q.d.opt.Size)
	}
	free, err := q.aboveFloor(f)
	if err != nil || size <= free {
		return err
	}
	if used, known := layout.EstimateUsage(f); known && size > free+used {
		return noRoomf("the blob has %d bytes, "+
			"the disk has room for %d beside the %d of the cache: "+
			"free some, lower --cache-min-free, or move the cache with --cache-dir",
			size, max(0, free), used)
	}
	return nil
}

// diskCost is the least that a file of n bytes is taken to use.
func diskCost(n int64) int64 {
	return (n+layout.BlockSize-1)/layout.BlockSize*layout.BlockSize + layout.NameCost
}
