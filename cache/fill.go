package cache

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
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
		k.file.fd = p.fd
	} else {
		err = k.toMemory(err)
	}
	if err == nil {
		err = k.run(fill)
	}
	if err == nil && k.mem == nil {
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
		case try > 0 || !isTrouble(err):
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

// fits fails at once for a large blob that the disk could not take were the cache empty, before it is emptied for it.
func (s *Store) fits(f *folder, size int64) error {
	if size <= s.lim.small {
		return nil
	}
	var st unix.Statfs_t
	if err := restart(func() error { return unix.Fstatfs(f.root, &st) }); err != nil {
		return diskError("statfs", err)
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if size <= free {
		return nil
	}
	used, known := estimateUsage(f)
	if known && size > free+used {
		return diskError("fill", fmt.Errorf("blob of %d bytes, %d are free and %d in the cache: %w", size, free, used, unix.ENOSPC))
	}
	return nil
}
