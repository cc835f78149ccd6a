package cache

import (
	"context"
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// eviction says how far to evict.
type eviction struct {
	goal   func(used int64) int64 // bytes that may stay, given the bytes that are there
	needed func(usage int64) bool // asked with the lock held: somebody else may have evicted meanwhile; nil: yes
	once   bool                   // not if another round of this process removed something meanwhile
	stays  int64                  // bytes of blobs and all else with a name that are left, whatever the goal
	force  bool                   // also what was used since it was scanned; waits for the lock as long as ctx allows
}

// lockEvict takes the lock of those who count and evict, waiting up to limit (0: as long as ctx allows), or not at
// all with try. ok false: somebody else has it.
func (s *Store) lockEvict(ctx context.Context, f *folder, try bool, limit time.Duration) (fd int, ok bool, err error) {
	wait := backoff{limit: limit}
	for {
		fd, err := s.opening(ctx, func() (int, error) { return openState(f.root, "evict.lock") })
		if err != nil {
			return -1, false, diskError("open evict.lock", err)
		}
		ok, err := tryLock(fd)
		if ok {
			ok, err = current(fd, f.root, "evict.lock")
		}
		if ok && err == nil {
			return fd, true, nil
		}
		_ = unix.Close(fd)
		if err != nil {
			return -1, false, diskError("lock evict.lock", err)
		}
		if try {
			return -1, false, nil
		}
		if err := wait.wait(ctx); err == errBusy {
			return -1, false, nil
		} else if err != nil {
			return -1, false, err
		}
	}
}

// evict removes the least recently used blobs until the goal is reached, and writes the true sum into usage. Readers
// are not disturbed: they have the files open. It returns the bytes and blobs that it removed.
func (s *Store) evict(ctx context.Context, f *folder, ev eviction) (freed int64, n int, err error) {
	rounds := s.quota.evictions.Load()
	limit := s.lim.patient
	if ev.force {
		limit = 0
	}
	lock, ok, err := s.lockEvict(ctx, f, false, limit)
	if err == nil && !ok {
		err = diskError("lock evict.lock", errBusy)
	}
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(lock)
	if ev.once && s.quota.evictions.Load() != rounds {
		return 0, 0, nil
	}
	if ev.needed != nil {
		usage, known, err := s.readUsage(ctx, f)
		if err != nil || known && !ev.needed(usage) {
			return 0, 0, err
		}
	}
	s.cleanTmp(ctx, f)
	goal := int64(-1)
	for {
		got, some, done, err := s.evictRound(ctx, f, ev, &goal)
		freed, n = freed+got, n+some
		if err != nil || done {
			s.count.evicted.Add(int64(n))
			if n > 0 {
				s.quota.evictions.Add(1)
			}
			return freed, n, err
		}
	}
}

// evictRound scans once and removes the oldest of what it saw. The caller holds evict.lock, so nobody else takes
// bytes out of the usage number; those that were added since before the scan are added to its sum.
func (s *Store) evictRound(ctx context.Context, f *folder, ev eviction, goal *int64) (freed int64, n int, done bool, err error) {
	before, growing, err := s.readGrowing(ctx, f)
	if err != nil {
		return 0, 0, true, err
	}
	s.lim.pause("scan")
	c, err := s.census(ctx, f, true, ev.force)
	if err != nil {
		return 0, 0, true, err
	}
	left := c.used + growing
	if *goal < 0 {
		*goal = max(0, ev.goal(left))
	}
	for i := range c.victims {
		if left <= *goal || ctx.Err() != nil {
			break
		}
		v := &c.victims[i]
		if ev.stays > 0 && left-growing-v.bytes < ev.stays {
			break
		}
		s.lim.pause("evict")
		if bytes, ok := s.unlink(ctx, f, v, ev.force); ok {
			left -= bytes
			freed += bytes
			n++
		}
	}
	s.lim.pause("sum")
	if n > 0 {
		s.sweep() // a full disk takes not even the number while the files are open
	}
	u, err := s.lockUsage(ctx, f)
	if err != nil {
		return freed, n, true, err
	}
	defer u.unlock()
	sum := left
	if u.known {
		sum += max(0, u.n-before)
	}
	u.boot = s.quota.boot
	if err = u.set(sum); n > 0 && full(err) {
		err = nil // the old number is too high, which is safe, and what was removed makes room
	}
	return freed, n, left <= *goal || n == 0, err
}

func (s *Store) readUsage(ctx context.Context, f *folder) (n int64, known bool, err error) {
	u, err := s.lockUsage(ctx, f)
	if err != nil {
		return 0, false, err
	}
	defer u.unlock()
	return u.n, u.known, nil
}

// readGrowing reads the usage number and, under the same lock, how much of it is of partial files. A
// file gets its name and loses that mark under the lock, too: one that is not seen here is seen by the
// scan that follows. The number is 0 when it is not known: a Store that has just made the folder may
// start it.
func (s *Store) readGrowing(ctx context.Context, f *folder) (n, growing int64, err error) {
	u, err := s.lockUsage(ctx, f)
	if err != nil {
		return 0, 0, err
	}
	defer u.unlock()
	names, err := dirNames(f.tmp, -1)
	if err != nil && !vanished(err) {
		return 0, 0, diskError("read tmp", err)
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(f.tmp, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&0o7777 == growingMode {
			growing += wholeBlocks(st.Size) + blockSize
		}
	}
	return u.n, growing, nil
}

// unlink removes a victim and its sidecar, and its directory with the last of them. A blob that was used since the
// scan stays, unless force is set.
func (s *Store) unlink(ctx context.Context, f *folder, v *victim, force bool) (bytes int64, ok bool) {
	dir, err := s.openShard(ctx, f, shardName(v.key[0]))
	if err != nil {
		return 0, false
	}
	defer unix.Close(dir)
	name := blobName(v.key)
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, false
	}
	if !force && atime(&st).After(v.atime) {
		return 0, false
	}
	if err := remove(dir, name); err != nil {
		return 0, false
	}
	bytes = blocks(&st)
	if st.Size > s.lim.small && unix.Fstatat(dir, name+sumsSuffix, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && remove(dir, name+sumsSuffix) == nil {
		bytes += blocks(&st)
	}
	if unix.Fstat(dir, &st) == nil && unix.Unlinkat(f.blobs, shardName(v.key[0]), unix.AT_REMOVEDIR) == nil {
		bytes += blocks(&st) // it was the last one there
	}
	return bytes, true
}

// recount writes the true sum into usage when it is missing or garbage.
func (s *Store) recount(ctx context.Context, f *folder) error {
	all := func(int64) int64 { return math.MaxInt64 }
	_, _, err := s.evict(ctx, f, eviction{goal: all})
	return err
}

// recountSoon counts in the background, after a boot: the number may miss what was filled just before a power cut.
func (s *Store) recountSoon() {
	if !s.quota.counting.CompareAndSwap(false, true) {
		return
	}
	s.life.wg.Go(func() {
		defer s.quota.counting.Store(false)
		f, err := s.disk.use()
		if err != nil {
			return
		}
		defer s.disk.done(f)
		if err := s.recount(s.life.ctx, f); err != nil && !errors.Is(err, errBusy) && s.life.ctx.Err() == nil {
			s.warn.warn("cannot count the cache", "dir", s.opt.Dir, "err", err)
		}
	})
}

// makeRoom answers a full disk: it evicts what is missing or a tenth of the cache, and says whether that or another
// eviction since removed anything.
func (s *Store) makeRoom(ctx context.Context, missing int64) bool {
	f, err := s.disk.use()
	if err != nil {
		return false
	}
	defer s.disk.done(f)
	rounds := s.quota.evictions.Load()
	goal := func(used int64) int64 { return used - max(missing, used/10) }
	_, _, err = s.evict(ctx, f, eviction{goal: goal, once: true})
	return err == nil && s.quota.evictions.Load() != rounds
}

// Prune evicts the least recently used blobs until at most target bytes are on disk; 0 evicts every blob and removes
// leftovers of dead fills. Fills under way and files that somebody has open are not disturbed. It returns the bytes
// and blobs that it removed.
func (s *Store) Prune(ctx context.Context, target int64) (freed int64, n int, err error) {
	f, err := s.disk.use()
	if err != nil {
		return 0, 0, err
	}
	defer s.disk.done(f)
	return s.evict(ctx, f, eviction{goal: func(int64) int64 { return max(0, target) }, force: true})
}

// Clear removes every blob, record and leftover and keeps the folder. Fills under way go on, and open files live
// until they are closed.
func (s *Store) Clear(ctx context.Context) error {
	f, err := s.disk.use()
	if err != nil {
		return err
	}
	defer s.disk.done(f)
	if err := s.clearRecords(ctx, f); err != nil {
		return err
	}
	_, _, err = s.evict(ctx, f, eviction{goal: func(int64) int64 { return 0 }, force: true})
	s.table.clear()
	return err
}
