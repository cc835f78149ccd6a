package cache

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// janitor looks after the table of open files until the Store closes, and removes what dead fills left.
func (s *Store) janitor() {
	ctx := s.life.ctx
	if f, err := s.disk.use(); err == nil {
		if s.cleanTmp(ctx, f) {
			s.recountSoon()
		}
		s.disk.done(f)
	}
	tick := time.NewTicker(s.lim.tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.watchFolder()
		s.table.closeIdle(s.lim.idle)
		s.touchUsed()
		s.sweep()
	}
}

// watchFolder notices that the cache folder was deleted, moved, replaced or opened to others, and stops using it.
func (s *Store) watchFolder() {
	f, err := s.disk.use()
	if err != nil {
		s.warn.warn("the cache folder cannot be used: blobs are served from memory as far as they fit",
			"dir", s.opt.Dir, "err", err)
		return
	}
	defer s.disk.done(f)
	if s.disk.moved(f) {
		s.warn.warn("the cache folder was deleted, replaced or opened to others: it is opened anew", "dir", s.opt.Dir)
		s.disk.renew(f)
	}
}

// touchUsed keeps the recency of what stays in the table for long: others evict by atime.
func (s *Store) touchUsed() {
	now := time.Now()
	used := s.table.pin(func(e *entry) bool {
		return e.blob.fd >= 0 && !e.blob.unnamed && e.used.Sub(e.blob.touched) > s.lim.touch
	})
	for _, e := range used {
		_ = setTimes(e.blob.fd, now, time.Time{}) // a disk that became read-only loses recency, nothing else
	}
	s.table.unpin(used, func(e *entry) { e.blob.touched = now })
}

// sweep closes idle files that were evicted, by whatever process: until then their space is not free.
func (s *Store) sweep() {
	idle := s.table.pin(func(e *entry) bool { return e.refs == 0 && e.blob.fd >= 0 && !e.blob.unnamed })
	gone := make(map[*entry]bool)
	for _, e := range idle {
		var st unix.Stat_t
		if unix.Fstat(e.blob.fd, &st) == nil && st.Nlink == 0 {
			gone[e] = true
		}
	}
	s.table.unpin(idle, func(e *entry) {
		if gone[e] {
			s.table.open.Remove(e.key)
			e.gone = true
		}
	})
}

// pin adds a reference to the entries that match, so that they stay open while they are looked at.
func (t *table) pin(match func(*entry) bool) []*entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := t.open.Values()
	n := 0
	for _, e := range entries {
		if match(e) {
			e.refs++
			entries[n] = e
			n++
		}
	}
	return entries[:n]
}

// unpin calls visit for each entry, with mu held, and gives its reference back.
func (t *table) unpin(entries []*entry, visit func(*entry)) {
	var last []*entry
	t.mu.Lock()
	for _, e := range entries {
		if !e.gone {
			visit(e)
		}
		e.refs--
		if e.refs == 0 && e.gone {
			t.forget(e)
			last = append(last, e)
		}
	}
	t.wake()
	t.mu.Unlock()
	closeAll(last)
}

// closeIdle closes what nobody used for a while.
func (t *table) closeIdle(after time.Duration) {
	t.closeIf(func(e *entry) bool { return time.Since(e.used) >= after })
}

// clear closes everything idle and forgets the failures.
func (t *table) clear() {
	t.closeIf(func(*entry) bool { return true })
	t.mu.Lock()
	t.failed.Purge()
	t.mu.Unlock()
}

func (t *table) closeIf(match func(*entry) bool) {
	var idle []*entry
	t.mu.Lock()
	for _, e := range t.open.Values() {
		if e.refs == 0 && match(e) {
			t.open.Remove(e.key)
			e.gone = true
			t.forget(e)
			idle = append(idle, e)
		}
	}
	t.mu.Unlock()
	closeAll(idle)
}

// cleanTmp removes the files of fills whose process died: those that nobody has locked. It says
// whether the usage number had one of them.
func (s *Store) cleanTmp(ctx context.Context, f *folder) (counted bool) {
	names, err := dirNames(f.tmp, -1)
	if err != nil && !os.IsNotExist(err) {
		return false
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return counted
		}
		fd, err := rawOpen(f.tmp, name, unix.O_RDONLY, 0o400)
		if notPartial(err) {
			_ = remove(f.tmp, name)
		}
		if err != nil {
			continue
		}
		if ok, err := tryLock(fd); ok && err == nil {
			s.lim.pause("clean")
			if same, err := current(fd, f.tmp, name); same && err == nil {
				var st unix.Stat_t
				counted = unix.Fstat(fd, &st) == nil && st.Mode&0o7777 == growingMode || counted
				_ = remove(f.tmp, name)
			}
		}
		_ = unix.Close(fd)
	}
	return counted
}
