package disk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
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
func wholeBlocks(n int64) int64 {
	return (n + layout.BlockSize - 1) / layout.BlockSize * layout.BlockSize
}

// room makes sure that n bytes more may be written.
func (p *Partial) room(n int) error {
	missing := p.off + int64(n) - p.taken
	if p.size >= 0 || missing <= 0 {
		return nil
	}
	missing = wholeBlocks(missing)
	step := max(missing, min(p.taken, maxStep))
	err := p.take(step)
	if err != nil && step > missing && p.ctx.Err() == nil {
		err = p.take(missing)
	}
	return err
}

// counted returns the bytes of the file that are in the usage number.
func (p *Partial) counted() int64 {
	if p.taken == 0 {
		return 0
	}
	return p.taken + layout.BlockSize
}

// trim ends a file where its bytes end. What was taken beyond stays in the usage number until the
// next count.
func (p *Partial) trim() error {
	if p.taken == 0 {
		return nil
	}
	if err := unix.Ftruncate(p.fd, p.off); err != nil {
		return layout.OnDisk("truncate", err)
	}
	p.taken = wholeBlocks(p.off)
	return nil
}

// take adds n bytes to a file and to the usage number, evicting for it as the rule above allows.
func (p *Partial) take(n int64) error {
	var w want
	cost := n
	if p.taken == 0 {
		cost += layout.BlockSize // for the list of its extents
	}
	for range 4 {
		u, err := p.d.quota.lockUsage(p.ctx, p.f)
		if err != nil {
			return err
		}
		if w, err = p.d.quota.measure(p.f, u, cost); err == nil && u.known && w.missing() <= 0 {
			if err = p.enlarge(u, n, cost); err == nil || !layout.Full(err) {
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
			err = p.d.quota.recount(p.ctx, p.f)
		default:
			_, _, err = p.d.quota.evict(p.ctx, p.f, w.eviction(p.d.opt.Size))
		}
		if err != nil {
			return err
		}
	}
	return p.noRoom(w)
}

// enlarge makes the file n bytes longer, which adds cost to the number. The number is first, so
// that a crash leaves it too high.
func (p *Partial) enlarge(u *usageLock, n, cost int64) error {
	if err := u.set(u.n + cost); err != nil {
		return err
	}
	p.d.lim.pause("enlarge")
	err := allocate(p.fd, p.taken, n)
	if err == nil && p.taken == 0 {
		err = unix.Fchmod(p.fd, growingMode)
	}
	if err != nil {
		_ = unix.Ftruncate(p.fd, p.taken)
		_ = u.set(u.n - cost) // too high is safe
		return layout.OnDisk("enlarge partial file", err)
	}
	p.taken += n
	return nil
}

// allocate makes a file n bytes longer and takes their blocks, where the file system can do that
// ahead.
func allocate(fd int, size, n int64) error {
	err := layout.Restart(func() error { return unix.Fallocate(fd, 0, size, n) })
	if err == nil || layout.Full(err) {
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
func (p *Partial) noRoom(w want) error {
	why := fmt.Sprintf("the cache may take %d bytes (--cache-size)", p.d.opt.Size)
	if w.short > w.over {
		why = fmt.Sprintf("%d bytes are missing on its disk above what is to stay free "+
			"(--cache-min-free)", w.short)
	}
	return noRoomf("after %d bytes of a blob whose size nothing signs: %s, "+
		"and the half that was read last stays", p.off, why)
}
