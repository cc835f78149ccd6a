package cache

import (
	"time"
)

// janitor looks after the table of open files until the Store closes, and removes what dead fills
// left.
func (s *Store) janitor() {
	ctx := s.life.ctx
	s.dir.Clean(ctx)
	tick := time.NewTicker(s.lim.tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.dir.Watch()
		s.table.closeIf(func(e *entry) bool { return time.Since(e.used) >= s.lim.idle })
		s.table.touch()
		s.table.sweep()
	}
}

// touch keeps the recency of what stays in the table for long: other processes evict by atime.
func (t *table) touch() {
	files := t.pin(onFile)
	used := make([]time.Time, len(files))
	t.mu.Lock()
	for i, e := range files {
		used[i] = e.used
	}
	t.mu.Unlock()
	for i, e := range files {
		e.blob.file.Touch(used[i])
	}
	t.unpin(files, func(*entry) {})
}

// sweep closes idle files that were evicted, by whatever process: until then their space is not
// free.
func (t *table) sweep() {
	idle := t.pin(func(e *entry) bool { return e.refs == 0 && onFile(e) })
	gone := make(map[*entry]bool)
	for _, e := range idle {
		if e.blob.file.Evicted() {
			gone[e] = true
		}
	}
	t.unpin(idle, func(e *entry) {
		if gone[e] {
			t.open.Remove(e.key)
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

// clear closes everything idle and forgets the failures.
func (t *table) clear() {
	t.closeIf(func(*entry) bool { return true })
	t.mu.Lock()
	t.failed.Purge()
	t.mu.Unlock()
}

// closeIf closes what is idle and matches.
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
