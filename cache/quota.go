package cache

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// blockSize is what a file of one byte takes on the file systems in use.
	blockSize = 4096
	// nameCost is added for each file's name, since directories grow too: 68 bytes and a half-empty index.
	nameCost = 160
	// overhead is what a cache takes without blobs and records: its directories, usage, evict.lock and CACHEDIR.TAG.
	overhead = 8 * blockSize
	// usageFormat is the usage file: bytes on disk, and the boot in which they were last counted.
	usageFormat = "%020d %s\n"
	usageSize   = 20 + 1 + 36 + 1
)

// quota keeps the cache folder within its limit, together with the other processes that share it.
type quota struct {
	boot      string
	turn      chan struct{} // holds a token: who has it may use folder.usage
	evictions atomic.Int64  // rounds finished by this process
	counting  atomic.Bool   // a recount is under way in the background

	mu     sync.Mutex // guards looked and short
	looked time.Time  // when the free space was last asked for
	short  int64      // bytes then missing to the free-space floor
}

func newQuota() *quota {
	q := &quota{boot: bootID(), turn: make(chan struct{}, 1)}
	q.turn <- struct{}{}
	return q
}

// bootID changes with every boot. A number written before a power cut may miss the last fills, so it is counted anew.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if id := strings.TrimSpace(string(b)); err == nil && len(id) == 36 {
		return id
	}
	return strings.Repeat("-", 36)
}

// writeUsage writes the number, and once more as the file's mtime. That is metadata, so journaling file systems keep
// it in step with the renames; the content may come back from a power cut older than the files it counts, and differs
// from the mtime then.
func writeUsage(fd int, n int64, boot string) error {
	n = max(n, 0)
	if _, err := pwriteFull(fd, fmt.Appendf(nil, usageFormat, n, boot), 0); err != nil {
		return err
	}
	return setTimes(fd, time.Time{}, usageTime(n))
}

// usageTime is a time that stands for n: seconds for the MiB, and the rest in a fraction that survives rounding to
// 100 ns.
func usageTime(n int64) time.Time { return time.Unix(n>>20, n&(1<<20-1)*900) }

// agrees says whether the mtime of the usage file is that of n, as far as the file system keeps it.
func agrees(st *unix.Stat_t, n int64) bool {
	want := usageTime(n)
	return int64(st.Mtim.Sec) == want.Unix() && (st.Mtim.Nsec == 0 || int64(st.Mtim.Nsec) == int64(want.Nanosecond()))
}

// usageLock is the usage number while it is locked.
type usageLock struct {
	q     *quota
	fd    int
	n     int64  // bytes on disk, never less than there are
	known bool   // n can be believed; else the file is missing or garbage
	boot  string // the boot in which n was last counted
}

// lockUsage locks the usage number. It is held for a few system calls at a time, by whoever has it.
func (s *Store) lockUsage(ctx context.Context, f *folder) (*usageLock, error) {
	select {
	case <-s.quota.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var st unix.Stat_t
	fd, err := s.flockUsage(ctx, f, &st)
	if err != nil {
		s.quota.turn <- struct{}{}
		return nil, diskError("lock usage", err)
	}
	u := &usageLock{q: s.quota, fd: fd}
	var buf [usageSize]byte // a longer file is as good: what counts is at its start
	n, err := preadFull(fd, buf[:], 0)
	if err != nil {
		u.unlock()
		return nil, diskError("read usage", err)
	}
	u.n, u.boot, u.known = parseUsage(string(buf[:n]))
	if u.known = u.known && agrees(&st, u.n); !u.known {
		u.n = 0
	}
	return u, nil
}

func parseUsage(text string) (n int64, boot string, ok bool) {
	number, boot, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || len(number) != 20 || len(boot) != 36 {
		return 0, "", false
	}
	return n, boot, true
}

// flockUsage locks the file that is at the path now: somebody may have deleted the one that is open.
func (s *Store) flockUsage(ctx context.Context, f *folder, st *unix.Stat_t) (int, error) {
	wait := backoff{limit: s.lim.patient}
	for {
		ok, err := tryLock(f.usage)
		if err != nil {
			return -1, err
		}
		if !ok {
			if err := wait.wait(ctx); err != nil {
				return -1, err
			}
			continue
		}
		if err := unix.Fstat(f.usage, st); err != nil || st.Nlink > 0 {
			return f.usage, err
		}
		fd, err := openState(f.root, "usage")
		if err != nil {
			_ = unix.Flock(f.usage, unix.LOCK_UN)
			return -1, err
		}
		_ = unix.Close(f.usage)
		f.usage = fd
	}
}

// set writes the number.
func (u *usageLock) set(n int64) error {
	err := writeUsage(u.fd, n, u.boot)
	if err == nil && !u.known { // garbage may have been longer; whoever dies on the way leaves the number all the same
		if err = unix.Ftruncate(u.fd, usageSize); err == nil {
			err = setTimes(u.fd, time.Time{}, usageTime(max(n, 0)))
		}
	}
	if err != nil {
		return diskError("write usage", err)
	}
	u.n, u.known = n, true
	return nil
}

func (u *usageLock) unlock() {
	_ = unix.Flock(u.fd, unix.LOCK_UN)
	u.q.turn <- struct{}{}
}

// reserve adds n bytes to the usage number and then, still under its lock, gives them their name: so whoever counts
// under the lock finds every file that the number holds. It evicts when n does not fit; ok false means that nothing
// helped. A crash between the two leaves the number too high, never too low.
func (s *Store) reserve(ctx context.Context, f *folder, n int64, name func() error) (ok bool, err error) {
	if n > s.opt.Size {
		s.warn.warn("a blob is larger than the whole cache may be: it is kept only while it is in use",
			"dir", s.opt.Dir, "bytes", n, "limit", s.opt.Size)
		return false, nil
	}
	if ok, err := s.floor(ctx, f, n); !ok || err != nil {
		return false, err
	}
	for range 4 {
		u, err := s.lockUsage(ctx, f)
		if err != nil {
			return false, err
		}
		if u.known && u.n+n <= s.opt.Size {
			if err = u.set(u.n + n); err == nil {
				s.lim.pause("name")
				if err = name(); err != nil {
					_ = u.set(u.n - n) // too high is safe
				}
			}
			old := u.boot != s.quota.boot
			u.unlock()
			if old {
				s.recountSoon()
			}
			return err == nil, err
		}
		known := u.known
		u.unlock()
		if !known {
			err = s.recount(ctx, f)
		} else {
			target := min(s.opt.Size/10*9, s.opt.Size-n)
			_, _, err = s.evict(ctx, f, eviction{goal: func(int64) int64 { return target }, needed: func(used int64) bool { return used+n > s.opt.Size }})
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// floor keeps a part of the file system free, evicting for it. It asks the file system at most once a second.
func (s *Store) floor(ctx context.Context, f *folder, n int64) (ok bool, err error) {
	if s.opt.MinFree < 0 {
		return true, nil
	}
	q := s.quota
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.looked) < time.Second && n < 1<<20 {
		return q.short <= 0, nil
	}
	if err := s.lookFree(f); err != nil {
		return false, err
	}
	if q.short > 0 {
		short := q.short
		goal := func(used int64) int64 { return used - short - short/10 }
		if _, _, err := s.evict(ctx, f, eviction{goal: goal}); err != nil {
			return false, err
		}
		if err := s.lookFree(f); err != nil {
			return false, err
		}
	}
	if q.short > 0 {
		s.warn.warn("too little space is free on the cache's disk: blobs are kept only while they are in use",
			"dir", s.opt.Dir, "missing_bytes", q.short, "min_free", s.opt.MinFree)
	}
	return q.short <= 0, nil
}

// lookFree measures how many bytes are missing to the floor. The caller holds quota.mu.
func (s *Store) lookFree(f *folder) error {
	free, err := s.aboveFloor(f)
	if err != nil {
		return err
	}
	s.quota.looked, s.quota.short = time.Now(), -free
	return nil
}
