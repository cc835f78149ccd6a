package cache

import (
	"context"
	"errors"
)

// fill brings the blob of key: to disk if the disk takes it, else to memory. filled is false when another process
// was faster.
func (s *Store) fill(ctx context.Context, key digest, size int64, fill Fill) (b *blob, filled bool, err error) {
	p, b, err := s.begin(ctx, key, size)
	if b != nil {
		return b, false, nil
	}
	if err != nil && !isTrouble(err) {
		return nil, false, err
	}
	k := newSink(ctx, s, size)
	if p != nil {
		defer s.disk.done(p.f)
		k.file.fd, k.file.folder = p.fd, p.f
	} else {
		err = k.toMemory(err)
	}
	if err == nil {
		err = k.run(fill)
	}
	if err == nil && k.mem == nil {
		err = k.file.trim()
	}
	if err == nil && k.mem == nil {
		p.counted = k.file.counted()
		b, err = s.publish(ctx, p, k.file.sums.finish())
	}
	if err != nil {
		s.count.failed.Add(1)
		k.drop()
	}
	if p != nil && b == nil {
		p.abandon(err)
	}
	if err != nil {
		return nil, false, err
	}
	if b == nil {
		b = k.memoryBlob()
	}
	return b, true, nil
}

// begin claims key's partial file, with a reference to its folder. Trouble is met once: with room on a full disk,
// with a new folder for a lost one.
func (s *Store) begin(ctx context.Context, key digest, size int64) (p *partial, b *blob, err error) {
	for try := 0; ; try++ {
		f, err := s.disk.use()
		if err != nil {
			return nil, nil, diskError("open folder", err)
		}
		if err = s.fits(f, size); err == nil {
			p, b, err = s.claim(ctx, f, key, size)
		}
		if p != nil {
			return p, nil, nil
		}
		again := false
		switch {
		case try > 0 || !isTrouble(err) || errors.Is(err, ErrRoom):
		case full(err):
			again = s.makeRoom(ctx, max(size, 1<<20))
		case vanished(err):
			s.disk.renew(f)
			again = true
		}
		s.disk.done(f)
		if !again {
			return nil, b, err
		}
	}
}

// fits fails at once for a large blob that the limit, or the disk were the cache empty, could not take: nothing is asked
// for then, and nothing evicted.
func (s *Store) fits(f *folder, size int64) error {
	if size <= s.lim.small {
		return nil
	}
	if size > s.opt.Size {
		return noRoomf("the blob has %d bytes, the cache may take %d: raise --cache-size",
			size, s.opt.Size)
	}
	free, err := s.aboveFloor(f)
	if err != nil || size <= free {
		return err
	}
	if used, known := estimateUsage(f); known && size > free+used {
		return noRoomf("the blob has %d bytes, the disk has room for %d beside the %d of the cache: "+
			"free some, lower --cache-min-free, or move the cache with --cache-dir",
			size, max(0, free), used)
	}
	return nil
}
