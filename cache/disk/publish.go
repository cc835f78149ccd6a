package disk

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// Publish gives a complete file its name. When the disk or the limits do not allow that, the blob
// is served from the file without a name, which is gone when it is closed. After an error the file
// is abandoned.
func (p *Partial) Publish(ctx context.Context) (*Blob, error) {
	b, err := p.publish(ctx)
	if err != nil {
		p.Abandon(err)
		return nil, err
	}
	p.d.done(p.f)
	return b, nil
}

func (p *Partial) publish(ctx context.Context) (*Blob, error) {
	if err := p.trim(); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return nil, layout.OnDisk("stat partial file", err)
	}
	now := time.Now()
	b := newBlob(p.d, p.fd, p.key, &st)
	b.touched.Store(now.UnixNano())
	if st.Size > p.d.lim.Small {
		b.sums = p.sums.Finish()
	}
	p.d.check.seen.add(p.key, st.Ino, allChunks) // the fill vouches for what it wrote
	err := p.finish(&st, now)
	named := false
	if err == nil {
		named, err = p.nameBlob(ctx, b, &st)
	}
	if b.unnamed = !named; b.unnamed {
		_ = layout.Remove(p.f.Tmp, p.name)
	}
	if err != nil {
		p.d.Warn("a blob cannot be kept in the cache", err)
	}
	if layout.Vanished(err) {
		p.d.renew(p.f)
	}
	p.d.lim.pause("unlock")
	if err := unix.Flock(p.fd, unix.LOCK_UN); err != nil {
		p.d.Warn("a blob stays locked while it is open", layout.OnDisk("unlock", err))
	}
	return b, nil
}

// finish gives the file the mode and the times by which it is known later.
func (p *Partial) finish(st *unix.Stat_t, now time.Time) error {
	if st.Mode&0o7777 != 0o400 && p.taken == 0 { // a umask that takes from the owner
		if err := unix.Fchmod(p.fd, 0o400); err != nil {
			return layout.OnDisk("chmod", err)
		}
	}
	return layout.OnDisk("set times", layout.SetTimes(p.fd, now, layout.Stamp(p.key)))
}

// nameBlob counts a finished file and renames it to its blob's name, its sidecar first. Trouble is
// met once.
func (p *Partial) nameBlob(ctx context.Context, b *Blob, st *unix.Stat_t) (named bool, err error) {
	cost := max(layout.Blocks(st)+layout.NameCost, diskCost(st.Size))
	if b.sums != nil {
		cost += diskCost(layout.SumsSize(st.Size, p.d.lim.Chunk))
	}
	cost = max(0, cost-p.counted())
	for try := 0; ; try++ {
		named, err = p.rename(ctx, b, cost)
		if named || err == nil || try > 0 {
			return named, err
		}
		// ENOENT: an evictor has just removed the directory, which was empty.
		again := errors.Is(err, unix.ENOENT)
		if layout.Full(err) {
			again = p.d.quota.makeRoom(ctx, p.f, cost)
		}
		if !again {
			return false, err
		}
	}
}

// rename is one try of nameBlob. A directory that is missing is counted before it is made.
func (p *Partial) rename(ctx context.Context, b *Blob, cost int64) (bool, error) {
	aa, name := layout.ShardName(p.key[0]), p.name
	dir, err := p.f.OpenShard(ctx, aa)
	missing := err == unix.ENOENT || layout.NotDir(err)
	if err != nil && !missing {
		return false, layout.OnDisk("open shard", err)
	}
	if missing {
		cost += layout.BlockSize
	}
	defer func() {
		if dir >= 0 {
			_ = unix.Close(dir)
		}
	}()
	return p.d.quota.reserve(ctx, p.f, cost, func() (err error) {
		if missing {
			if dir, err = p.f.MakeShard(ctx, aa); err != nil {
				return layout.OnDisk("make shard", err)
			}
			defer func() {
				if err != nil {
					_ = unix.Unlinkat(p.f.Blobs, aa, unix.AT_REMOVEDIR) // if it is empty
				}
			}()
		}
		if b.sums != nil {
			data := layout.EncodeSums(p.key, b.size, p.d.lim.Chunk, b.sums)
			if err := writeSums(ctx, p.f, dir, p.key, data); err != nil {
				return err
			}
		}
		if p.taken > 0 { // with the mark goes what counts the file, until it has its name
			if err := unix.Fchmod(p.fd, 0o400); err != nil {
				return layout.OnDisk("chmod", err)
			}
		}
		err = unix.Renameat(p.f.Tmp, name, dir, name)
		if err != nil && p.taken > 0 {
			_ = unix.Fchmod(p.fd, growingMode) // a count must see it again
		}
		if err != nil && b.sums != nil {
			_ = layout.Remove(dir, name+layout.SumsSuffix)
		}
		return layout.OnDisk("rename", err)
	})
}
