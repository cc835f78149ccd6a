package disk

import (
	"context"
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// eviction says how far to evict.
type eviction struct {
	goal func(used int64) int64 // bytes that may stay, given the bytes that are there
	// needed is asked with the lock held: another process may have evicted meanwhile; nil: yes.
	needed func(usage int64) bool
	once   bool  // not if another round of this process removed something meanwhile
	stays  int64 // bytes of blobs and all else with a name that are left, whatever the goal
	force  bool  // also what was used since the scan; waits for the lock as long as ctx allows
}

// lockEvict takes the lock under which the directory is counted and blobs are evicted, waiting up
// to limit (0: as long as ctx allows). ok false: another process kept it for longer.
func (q *quota) lockEvict(
	ctx context.Context, f *layout.Folder, limit time.Duration,
) (fd int, ok bool, err error) {
	wait := layout.Backoff{Limit: limit}
	for {
		open := func() (int, error) { return layout.OpenState(f.Root, "evict.lock") }
		fd, err := f.Opening(ctx, open)
		if err != nil {
			return -1, false, layout.OnDisk("open evict.lock", err)
		}
		ok, err := layout.TryLock(fd)
		if ok {
			ok, err = layout.IsCurrent(fd, f.Root, "evict.lock")
		}
		if ok && err == nil {
			return fd, true, nil
		}
		_ = unix.Close(fd)
		if err != nil {
			return -1, false, layout.OnDisk("lock evict.lock", err)
		}
		if err := wait.Wait(ctx); err == layout.ErrBusy {
			return -1, false, nil
		} else if err != nil {
			return -1, false, err
		}
	}
}

// evict removes the least recently used blobs until the goal is reached, and writes the true sum
// into usage. Readers are not disturbed: they have the files open. It returns the bytes and blobs
// that it removed.
func (q *quota) evict(
	ctx context.Context, f *layout.Folder, ev eviction,
) (freed int64, n int, err error) {
	rounds := q.evictions.Load()
	limit := q.d.lim.WaitLimit
	if ev.force {
		limit = 0
	}
	lock, ok, err := q.lockEvict(ctx, f, limit)
	if err == nil && !ok {
		err = layout.OnDisk("lock evict.lock", layout.ErrBusy)
	}
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(lock)
	if ev.once && q.evictions.Load() != rounds {
		return 0, 0, nil
	}
	if ev.needed != nil {
		usage, known, err := q.readUsage(ctx, f)
		if err != nil || known && !ev.needed(usage) {
			return 0, 0, err
		}
	}
	cleanTmp(ctx, q.d, f)
	goal := int64(-1)
	for {
		got, some, done, err := q.evictRound(ctx, f, ev, &goal)
		freed, n = freed+got, n+some
		if err != nil || done {
			q.d.count.evicted.Add(int64(n))
			if n > 0 {
				q.evictions.Add(1)
			}
			return freed, n, err
		}
	}
}

// evictRound scans once and removes the oldest of what it saw. The caller holds evict.lock, so no
// other process takes bytes out of the usage number; those that were added since before the scan
// are added to its sum.
func (q *quota) evictRound(
	ctx context.Context, f *layout.Folder, ev eviction, goal *int64,
) (freed int64, n int, done bool, err error) {
	before, growing, err := q.readGrowing(ctx, f)
	if err != nil {
		return 0, 0, true, err
	}
	q.d.lim.pause("scan")
	c, err := scanAll(ctx, f, q.d.lim.Candidates, true, ev.force)
	if err != nil {
		return 0, 0, true, err
	}
	left := c.used + growing
	if *goal < 0 {
		*goal = max(0, ev.goal(left))
	}
	for i := range c.candidates {
		if left <= *goal || ctx.Err() != nil {
			break
		}
		v := &c.candidates[i]
		if ev.stays > 0 && left-growing-v.bytes < ev.stays {
			break
		}
		q.d.lim.pause("evict")
		if bytes, ok := q.unlink(ctx, f, v, ev.force); ok {
			left -= bytes
			freed += bytes
			n++
		}
	}
	q.d.lim.pause("sum")
	if n > 0 {
		q.d.opt.Sweep() // a full disk takes not even the number while the files are open
	}
	u, err := q.lockUsage(ctx, f)
	if err != nil {
		return freed, n, true, err
	}
	defer u.unlock()
	sum := left
	if u.known {
		sum += max(0, u.n-before)
	}
	u.boot = q.boot
	if err = u.set(sum); n > 0 && layout.Full(err) {
		err = nil // the old number is too high, which is safe, and what was removed makes room
	}
	return freed, n, left <= *goal || n == 0, err
}

// unlink removes a candidate and its sidecar, and its directory with the last of them. A blob that
// was used since the scan stays, unless force is set.
func (q *quota) unlink(
	ctx context.Context, f *layout.Folder, v *candidate, force bool,
) (bytes int64, ok bool) {
	dir, err := f.OpenShard(ctx, layout.ShardName(v.key[0]))
	if err != nil {
		return 0, false
	}
	defer unix.Close(dir)
	name := layout.BlobName(v.key)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, false
	}
	if !force && layout.Atime(&st).After(v.atime) {
		return 0, false
	}
	if err := layout.Remove(dir, name); err != nil {
		return 0, false
	}
	bytes = layout.Blocks(&st)
	name += layout.SumsSuffix
	if st.Size > q.d.lim.Small && unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		layout.Remove(dir, name) == nil {
		bytes += layout.Blocks(&st)
	}
	shard := layout.ShardName(v.key[0])
	if unix.Fstat(dir, &st) == nil && unix.Unlinkat(f.Blobs, shard, unix.AT_REMOVEDIR) == nil {
		bytes += layout.Blocks(&st) // it was the last one there
	}
	return bytes, true
}

// recount writes the true sum into usage when it is missing or garbage.
func (q *quota) recount(ctx context.Context, f *layout.Folder) error {
	all := func(int64) int64 { return math.MaxInt64 }
	_, _, err := q.evict(ctx, f, eviction{goal: all})
	return err
}

// recountSoon counts in the background, after a boot: the number may miss what was filled just
// before a power cut.
func (q *quota) recountSoon() {
	if !q.counting.CompareAndSwap(false, true) {
		return
	}
	q.d.background.work.Go(func() {
		defer q.counting.Store(false)
		f, err := q.d.use()
		if err != nil {
			return
		}
		defer q.d.done(f)
		ctx := q.d.background.ctx
		err = q.recount(ctx, f)
		if err != nil && !errors.Is(err, layout.ErrBusy) && ctx.Err() == nil {
			q.d.Warn("cannot count the cache", err)
		}
	})
}

// makeRoom answers a full disk: it evicts what is missing or a tenth of the cache, and says whether
// that or another eviction since removed anything.
func (q *quota) makeRoom(ctx context.Context, f *layout.Folder, missing int64) bool {
	rounds := q.evictions.Load()
	goal := func(used int64) int64 { return used - max(missing, used/10) }
	_, _, err := q.evict(ctx, f, eviction{goal: goal, once: true})
	return err == nil && q.evictions.Load() != rounds
}
