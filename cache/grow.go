package cache

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A blob whose size nothing signs takes its room in steps, each before it is written: a step is
// in the usage number, and on the disk, as a longer partial file. Blobs are evicted for it as it
// grows, down to half of what the cache can hold: the half that was read last stays, whatever
// comes and however often. When no more may be evicted the fill fails with ErrRoom. Other blobs are
// counted when they get their name.

// maxStep bounds a step in bytes. Steps double up to it, so that a blob of 4 GiB takes about 80.
const maxStep = 64 << 20

// growingMode marks a partial file whose length is counted in the usage number.
const growingMode = 0o600

// wholeBlocks rounds up to what a file of n bytes takes.
func wholeBlocks(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// room makes sure that n bytes more may be written.
func (f *file) room(n int) error {
	missing := f.off + int64(n) - f.taken
	if f.size >= 0 || missing <= 0 {
		return nil
	}
	missing = wholeBlocks(missing)
	step := max(missing, min(f.taken, maxStep))
	err := f.s.take(f, step)
	if err != nil && step > missing && f.ctx.Err() == nil {
		err = f.s.take(f, missing)
	}
	return err
}

// counted returns the bytes of the file that are in the usage number.
func (f *file) counted() int64 {
	if f.taken == 0 {
		return 0
	}
	return f.taken + blockSize
}

// trim ends a file where its bytes end. What was taken beyond stays in the usage number until the
// next count.
func (f *file) trim() error {
	if f.taken == 0 {
		return nil
	}
	if err := unix.Ftruncate(f.fd, f.off); err != nil {
		return diskError("truncate", err)
	}
	f.taken = wholeBlocks(f.off)
	return nil
}

// take adds n bytes to a file and to the usage number, evicting for it as the rule above allows.
func (s *Store) take(f *file, n int64) error {
	var w want
	cost := n
	if f.taken == 0 {
		cost += blockSize // for the list of its extents
	}
	for range 4 {
		u, err := s.lockUsage(f.ctx, f.folder)
		if err != nil {
			return err
		}
		if w, err = s.measure(f.folder, u, cost); err == nil && u.known && w.missing() <= 0 {
			if err = s.enlarge(f, u, n, cost); err == nil || !full(err) {
				u.unlock()
				return err
			}
			w.short, err = cost, nil // a quota of the file system's
		}
		known := u.known
		u.unlock()
		switch {
		case err != nil:
			return err
		case !known:
			err = s.recount(f.ctx, f.folder)
		default:
			_, _, err = s.evict(f.ctx, f.folder, w.eviction(s.opt.Size))
		}
		if err != nil {
			return err
		}
	}
	return s.noRoom(f, w)
}

// enlarge makes the file n bytes longer, which adds cost to the number. The number is first, so that a crash leaves it too high.
func (s *Store) enlarge(f *file, u *usageLock, n, cost int64) error {
	if err := u.set(u.n + cost); err != nil {
		return err
	}
	s.lim.pause("enlarge")
	err := allocate(f.fd, f.taken, n)
	if err == nil && f.taken == 0 {
		err = unix.Fchmod(f.fd, growingMode)
	}
	if err != nil {
		_ = unix.Ftruncate(f.fd, f.taken)
		_ = u.set(u.n - cost) // too high is safe
		return diskError("enlarge partial file", err)
	}
	f.taken += n
	return nil
}

// allocate makes a file n bytes longer and takes their blocks, where the file system can do that
// ahead.
func allocate(fd int, size, n int64) error {
	err := restart(func() error { return unix.Fallocate(fd, 0, size, n) })
	if err == nil || full(err) {
		return err
	}
	return unix.Ftruncate(fd, size+n)
}

// want is room that a step needs.
type want struct {
	n     int64 // bytes
	over  int64 // by so many the limit would be exceeded
	short int64 // by so many the free space would be too little
	stays int64 // bytes of the cache that are not evicted for it
}

func (w want) missing() int64 { return max(w.over, w.short) }

// measure looks what n bytes more would mean. The caller holds the usage lock.
func (s *Store) measure(f *folder, u *usageLock, n int64) (want, error) {
	free, err := s.aboveFloor(f)
	if err != nil {
		return want{}, err
	}
	holds := min(s.opt.Size, u.n+max(0, free)) // what the cache can hold on this disk
	return want{n: n, over: u.n + n - s.opt.Size, short: n - free, stays: holds / 2}, nil
}

// eviction makes the room, and some more so that not every step evicts.
func (w want) eviction(limit int64) eviction {
	goal := func(used int64) int64 {
		target := used
		if w.over > 0 {
			target = min(limit/10*9, limit-w.n)
		}
		if w.short > 0 {
			target = min(target, used-w.short-w.short/10)
		}
		return target
	}
	needed := func(used int64) bool { return w.short > 0 || used+w.n > limit }
	return eviction{goal: goal, needed: needed, stays: w.stays}
}

// noRoom says what is in the way of a fill.
func (s *Store) noRoom(f *file, w want) error {
	why := fmt.Sprintf("the cache may take %d bytes (--cache-size)", s.opt.Size)
	if w.short > w.over {
		why = fmt.Sprintf("%d bytes are missing on its disk above what is to stay free "+
			"(--cache-min-free)", w.short)
	}
	return noRoomf("after %d bytes of a blob whose size nothing signs: %s, and the half that was read "+
		"last stays", f.off, why)
}

// ErrRoom says that the cache has no room for a blob, and may make none.
var ErrRoom = errors.New("no room in the cache")

// roomError is an ErrRoom with its reason. To a reader it is a full disk.
type roomError struct{ why string }

func (e *roomError) Error() string   { return ErrRoom.Error() + ": " + e.why }
func (e *roomError) Unwrap() []error { return []error{ErrRoom, unix.ENOSPC} }

// noRoomf makes a roomError the disk's.
func noRoomf(format string, args ...any) error {
	return &trouble{"make room", &roomError{fmt.Sprintf(format, args...)}}
}
