package cache

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// publish gives a complete partial file its name. When the disk or the limits do not allow that, the blob is served
// from the file without a name, which is gone when it is closed.
func (s *Store) publish(ctx context.Context, p *partial, sums []byte) (*blob, error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return nil, diskError("stat partial file", err)
	}
	b := &blob{fd: p.fd, ino: st.Ino, size: st.Size, touched: time.Now()}
	if st.Size > s.lim.small {
		b.sums = sums
	}
	s.check.add(p.key, st.Ino, allChunks) // the fill vouches for what it wrote
	err := p.finish(&st, b.touched)
	named := false
	if err == nil {
		named, err = s.name(ctx, p, b, &st)
	}
	if b.unnamed = !named; b.unnamed {
		_ = remove(p.f.tmp, p.name)
	}
	if err != nil {
		s.warn.warn("a blob cannot be kept in the cache", "dir", s.opt.Dir, "err", err)
	}
	if vanished(err) {
		s.disk.renew(p.f)
	}
	s.lim.pause("unlock")
	if err := unix.Flock(p.fd, unix.LOCK_UN); err != nil {
		return nil, diskError("unlock partial file", err)
	}
	return b, nil
}

// finish gives the file the mode and the times by which it is known later.
func (p *partial) finish(st *unix.Stat_t, now time.Time) error {
	if st.Mode&0o7777 != 0o400 && p.counted == 0 { // a umask that takes from the owner
		if err := unix.Fchmod(p.fd, 0o400); err != nil {
			return diskError("chmod", err)
		}
	}
	return diskError("set times", setTimes(p.fd, now, stamp(p.key)))
}

// name counts a finished file and renames it to its blob's name, its sidecar first. Trouble is met once.
func (s *Store) name(ctx context.Context, p *partial, b *blob, st *unix.Stat_t) (named bool, err error) {
	cost := max(blocks(st)+nameCost, diskCost(st.Size))
	if b.sums != nil {
		cost += diskCost(sumsSize(st.Size, s.lim.chunk))
	}
	cost = max(0, cost-p.counted)
	for try := 0; ; try++ {
		named, err = s.rename(ctx, p, b, cost)
		if named || err == nil || try > 0 {
			return named, err
		}
		again := errors.Is(err, unix.ENOENT) // an evictor has just removed the directory, which was empty
		if full(err) {
			again = s.makeRoom(ctx, cost)
		}
		if !again {
			return false, err
		}
	}
}

// rename is one try of name. A directory that is missing is counted before it is made.
func (s *Store) rename(ctx context.Context, p *partial, b *blob, cost int64) (bool, error) {
	aa, name := shardName(p.key[0]), p.name
	dir, err := s.openShard(ctx, p.f, aa)
	missing := err == unix.ENOENT || notDir(err)
	if err != nil && !missing {
		return false, diskError("open shard", err)
	}
	if missing {
		cost += blockSize
	}
	defer func() {
		if dir >= 0 {
			_ = unix.Close(dir)
		}
	}()
	return s.reserve(ctx, p.f, cost, func() (err error) {
		if missing {
			if dir, err = s.makeShard(ctx, p.f, aa); err != nil {
				return diskError("make shard", err)
			}
			defer func() {
				if err != nil {
					_ = unix.Unlinkat(p.f.blobs, aa, unix.AT_REMOVEDIR) // if it is empty
				}
			}()
		}
		if b.sums != nil {
			if err := s.writeSums(ctx, p.f, dir, p.key, encodeSums(p.key, b.size, s.lim.chunk, b.sums)); err != nil {
				return err
			}
		}
		if p.counted > 0 { // with the mark goes what counts the file, until it has its name
			if err := unix.Fchmod(p.fd, 0o400); err != nil {
				return diskError("chmod", err)
			}
		}
		err = unix.Renameat(p.f.tmp, name, dir, name)
		if err != nil && b.sums != nil {
			_ = remove(dir, name+sumsSuffix)
		}
		return diskError("rename", err)
	})
}
