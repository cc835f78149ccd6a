package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const sumsSuffix = ".sums"

// item is one file below blobs/, met by walk.
type item struct {
	dir  int // its directory, open during the visit
	name string
	key  digest
	sums bool // a sidecar, not a blob
	st   unix.Stat_t
}

// walk visits every file below blobs/ that has a name of ours, one directory after the other, and tells of each
// directory. What vanishes meanwhile is left out.
func (s *Store) walk(ctx context.Context, f *folder, enter func(*unix.Stat_t), visit func(*item) error) error {
	for aa := range 256 {
		if err := ctx.Err(); err != nil {
			return err
		}
		fd, err := s.openShard(ctx, f, shardName(byte(aa)))
		if err == unix.ENOENT || notDir(err) {
			continue
		}
		if err != nil {
			return diskError("open shard", err)
		}
		err = walkShard(ctx, fd, byte(aa), enter, visit)
		if err != nil {
			return diskError("read shard", err)
		}
	}
	return nil
}

// walkShard visits one directory and closes it.
func walkShard(ctx context.Context, fd int, aa byte, enter func(*unix.Stat_t), visit func(*item) error) error {
	d := os.NewFile(uintptr(fd), shardName(aa))
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	enter(&st)
	for {
		names, err := d.Readdirnames(512)
		for _, name := range names {
			it := item{dir: fd, name: name}
			base, isSums := strings.CutSuffix(name, sumsSuffix)
			var ok bool
			if it.key, ok = parseName(base); !ok || it.key[0] != aa {
				continue
			}
			it.sums = isSums
			if err := unix.Fstatat(fd, name, &it.st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
				continue
			} else if err != nil {
				return err
			}
			if err := visit(&it); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func shardName(aa byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[aa>>4], digits[aa&15]})
}

// census is what a scan of the folder found.
type census struct {
	used           int64 // bytes on disk of all that the folder holds, fills under way excepted
	files          int   // blobs
	oldest, newest time.Time
	victims        []victim // the least recently used blobs, oldest first
}

// victim is a blob that may be evicted.
type victim struct {
	key   digest
	atime time.Time
	bytes int64
}

// census scans the folder. With tidy it also removes what should not be there: what is no file, and sidecars whose
// blob is gone; a young one may belong to a blob that is about to get its name, unless all is to go.
func (s *Store) census(ctx context.Context, f *folder, tidy, all bool) (*census, error) {
	c := &census{used: overhead}
	enter := func(st *unix.Stat_t) { c.used += blocks(st) }
	err := s.walk(ctx, f, enter, func(it *item) error {
		if it.st.Mode&unix.S_IFMT != unix.S_IFREG {
			if tidy {
				_ = remove(it.dir, it.name)
			}
			return nil
		}
		if it.sums {
			old := time.Since(time.Unix(it.st.Mtim.Unix())) > time.Minute
			if tidy && (all || old) && unix.Faccessat(it.dir, blobName(it.key), unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT {
				_ = remove(it.dir, it.name)
				return nil
			}
			c.used += blocks(&it.st)
			return nil
		}
		c.add(it, s.lim.oldest)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.trim(s.lim.oldest)
	n, err := s.recordBytes(ctx, f)
	c.used += n
	return c, err
}

// add counts a blob and keeps it among the victims, of which the oldest stay when they become too many.
func (c *census) add(it *item, limit int) {
	at := atime(&it.st)
	c.used += blocks(&it.st)
	c.files++
	if c.oldest.IsZero() || at.Before(c.oldest) {
		c.oldest = at
	}
	if at.After(c.newest) {
		c.newest = at
	}
	c.victims = append(c.victims, victim{it.key, at, blocks(&it.st)})
	if len(c.victims) >= 2*limit {
		c.trim(limit)
	}
}

func (c *census) trim(limit int) {
	slices.SortFunc(c.victims, func(a, b victim) int {
		if n := a.atime.Compare(b.atime); n != 0 {
			return n
		}
		return slices.Compare(a.key[:], b.key[:])
	})
	c.victims = c.victims[:min(len(c.victims), limit)]
}
