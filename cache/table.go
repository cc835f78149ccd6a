package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk"
)

// blob is a complete blob, ready to be read: a file or, when the disk would not take it, memory.
type blob struct {
	file *disk.Blob // nil: memory
	mem  []byte
}

func (b *blob) size() int64 {
	if b.file == nil {
		return int64(len(b.mem))
	}
	return b.file.Size()
}

func (b *blob) close() {
	if b.file != nil {
		b.file.Close()
	}
}

// entry is a blob in the table of open files. All but key and blob is guarded by table.mu.
type entry struct {
	key  digest
	blob *blob
	refs int       // readers; only an entry without any is closed
	gone bool      // no longer in the table: the last reader closes it
	used time.Time // last Open or Close
}

// table holds what is open: blobs, the flights that bring more, the failures of the last second,
// and the bounds on descriptors and memory. Nothing waits for disk or network with mu held.
type table struct {
	files  int // most descriptors: open blobs and fills
	lim    limits
	mu     sync.Mutex // guards all below
	open   *simplelru.LRU[digest, *entry]
	failed *simplelru.LRU[digest, failure]

	flights map[digest]*flight
	use     use
	freed   chan struct{} // closed and replaced when something in use comes back
	closed  bool
}

// use is what the table's bounds bound.
type use struct {
	files  int // descriptors
	fills  int // those of them that may wait for the network
	mem    int64
	wanted bool // a goroutine waits for one of these
}

func newTable(files int, lim limits) *table {
	// What is open is bounded by files and lim.memory instead.
	open, _ := simplelru.NewLRU[digest, *entry](1<<30, nil)
	failed, _ := simplelru.NewLRU[digest, failure](1024, nil)
	return &table{
		files: max(files, 4), lim: lim, open: open, failed: failed,
		flights: make(map[digest]*flight), freed: make(chan struct{}),
	}
}

// insert puts a blob into the table. The caller holds mu and sets refs.
func (t *table) insert(key digest, b *blob) *entry {
	e := &entry{key: key, blob: b, used: time.Now(), gone: t.closed}
	if !t.closed {
		t.open.Add(key, e)
	}
	return e
}

// has says whether a blob is in the table.
func (t *table) has(key digest) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open.Contains(key)
}

// release gives back one reference.
func (t *table) release(e *entry) {
	t.mu.Lock()
	e.refs--
	e.used = time.Now()
	last := e.refs == 0 && e.gone
	if last {
		t.forget(e)
	}
	if e.refs == 0 {
		t.wake()
	}
	t.mu.Unlock()
	if last {
		e.blob.close()
	}
}

// discard takes an entry out of the table, so that the next Open looks again. Readers keep it. It
// says whether the entry was still there.
func (t *table) discard(e *entry) bool {
	t.mu.Lock()
	was := !e.gone
	if at, ok := t.open.Peek(e.key); ok && at == e {
		t.open.Remove(e.key)
	}
	idle := was && e.refs == 0
	if e.gone = true; idle {
		t.forget(e)
	}
	t.mu.Unlock()
	if idle {
		e.blob.close()
	}
	return was
}

// discardKey is discard for whatever entry key has.
func (t *table) discardKey(key digest) {
	t.mu.Lock()
	e, ok := t.open.Peek(key)
	t.mu.Unlock()
	if ok {
		t.discard(e)
	}
}

// forget takes an entry that is about to be closed out of the bounds. The caller holds mu.
func (t *table) forget(e *entry) {
	if e.blob.file != nil {
		t.use.files--
	}
	t.use.mem -= charge(e.blob.mem)
	t.wake()
}

// pageSize is the least that a blob in memory counts.
const pageSize = 4096

// charge is what a blob in memory counts; a small one counts a page, which bounds their number.
func charge(mem []byte) int64 {
	if mem == nil {
		return 0
	}
	return max(int64(cap(mem)), pageSize)
}

// wake wakes the goroutines that wait for something to come back. The caller holds mu.
func (t *table) wake() {
	if t.use.wanted {
		close(t.freed)
		t.freed = make(chan struct{})
		t.use.wanted = false
	}
}

// takeFile reserves one descriptor, closing idle files for it and waiting when all are in use.
func (t *table) takeFile(ctx context.Context) error {
	return t.take(ctx, unix.EMFILE, onFile,
		func() bool { return t.use.countFile(t.files) })
}

// tryFile is takeFile without a wait.
func (t *table) tryFile() bool {
	var idle *entry
	t.mu.Lock()
	ok := t.use.countFile(t.files)
	if !ok {
		if idle = t.oldest(onFile); idle != nil {
			ok = t.use.countFile(t.files)
		}
	}
	t.mu.Unlock()
	if idle != nil {
		idle.blob.close()
	}
	return ok
}

// countFile takes a descriptor if fewer than most are in use. The caller holds the table's mu.
func (u *use) countFile(most int) bool {
	if u.files >= most {
		return false
	}
	u.files++
	return true
}

// takeFill reserves a place among the fills, which may use three quarters of the descriptors:
// stalled downloads must not keep cached blobs from being opened. It waits as long as the fills
// before it take.
func (t *table) takeFill(ctx context.Context) error {
	return t.take(ctx, nil, nil, func() bool {
		if t.use.fills >= t.mostFills() {
			return false
		}
		t.use.fills++
		return true
	})
}

func (t *table) mostFills() int { return t.files - t.files/4 }

// takeMemory reserves n bytes of memory for a blob that the disk does not take.
func (t *table) takeMemory(ctx context.Context, n int64) error {
	return t.take(ctx, unix.ENOMEM, inMemory, func() bool {
		if t.use.mem+n > t.lim.memory {
			return false
		}
		t.use.mem += n
		return true
	})
}

// give takes back what is no longer in use.
func (t *table) give(u use) {
	t.mu.Lock()
	t.use.files -= u.files
	t.use.fills -= u.fills
	t.use.mem -= u.mem
	t.wake()
	t.mu.Unlock()
}

func onFile(e *entry) bool   { return e.blob.file != nil }
func inMemory(e *entry) bool { return e.blob.file == nil }

// take waits until ready, which it calls with mu held, says yes. It closes idle entries that help
// on the way. When cause is not nil it fails with it after the bound on waiting.
func (t *table) take(
	ctx context.Context, cause error, helps func(*entry) bool, ready func() bool,
) error {
	var timeout <-chan time.Time
	for {
		var idle []*entry
		t.mu.Lock()
		ok := ready()
		for !ok && helps != nil {
			e := t.oldest(helps)
			if e == nil {
				break
			}
			idle = append(idle, e)
			ok = ready()
		}
		freed := t.freed
		t.use.wanted = t.use.wanted || !ok
		t.mu.Unlock()
		closeAll(idle)
		if ok {
			return nil
		}
		if cause != nil && timeout == nil {
			timer := time.NewTimer(t.lim.WaitLimit)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout:
			return fmt.Errorf("cache: all %d files or %d bytes of memory in use for %v: %w",
				t.files, t.lim.memory, t.lim.WaitLimit, cause)
		}
	}
}

// oldest removes the least recently used idle entry that helps. The caller holds mu and closes it
// afterwards. What is in use counts as just used, so a call looks at few.
func (t *table) oldest(helps func(*entry) bool) *entry {
	for range t.open.Len() {
		key, e, _ := t.open.GetOldest()
		if e.refs > 0 || !helps(e) {
			t.open.Get(key)
			continue
		}
		t.open.Remove(key)
		e.gone = true
		t.forget(e)
		return e
	}
	return nil
}

// shed closes up to n idle files: the process has run out of descriptors.
func (t *table) shed(n int) {
	var idle []*entry
	t.mu.Lock()
	for len(idle) < n {
		e := t.oldest(onFile)
		if e == nil {
			break
		}
		idle = append(idle, e)
	}
	t.mu.Unlock()
	closeAll(idle)
}

func (t *table) usage() (files int, mem int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.use.files, t.use.mem
}

// shut makes the table take no more entries.
func (t *table) shut() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
}

// drain closes what is idle and leaves the rest to its readers.
func (t *table) drain() {
	t.mu.Lock()
	entries := t.open.Values()
	t.mu.Unlock()
	for _, e := range entries {
		t.discard(e)
	}
}

func closeAll(entries []*entry) {
	for _, e := range entries {
		e.blob.close()
	}
}
