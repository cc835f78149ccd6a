package disk

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// scan is what one look at all of the folder found.
type scan struct {
	used           int64 // bytes on disk of all that the folder holds, fills under way excepted
	files          int   // blobs
	oldest, newest time.Time
	candidates     []candidate // the least recently used blobs, oldest first
}

// candidate is a blob that may be evicted.
type candidate struct {
	key   digest
	atime time.Time
	bytes int64
}

// scanAll scans the folder and keeps about limit candidates. With tidy it also removes what should
// not be there: what is no file, and sidecars whose blob is gone; a young one may belong to a blob
// that is about to get its name, unless all is to go.
func scanAll(ctx context.Context, f *layout.Folder, limit int, tidy, all bool) (*scan, error) {
	c := &scan{used: layout.Overhead}
	enter := func(st *unix.Stat_t) { c.used += layout.Blocks(st) }
	err := f.Walk(ctx, enter, func(it *layout.Item) error {
		if it.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
			if tidy {
				_ = layout.Remove(it.Dir, it.Name)
			}
			return nil
		}
		if it.Sums {
			old := time.Since(time.Unix(it.Stat.Mtim.Unix())) > time.Minute
			blob := layout.BlobName(it.Key)
			if tidy && (all || old) &&
				unix.Faccessat(it.Dir, blob, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == unix.ENOENT {
				_ = layout.Remove(it.Dir, it.Name)
				return nil
			}
			c.used += layout.Blocks(&it.Stat)
			return nil
		}
		c.add(it, limit)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.trim(limit)
	n, err := recordBytes(ctx, f)
	c.used += n
	return c, err
}

// add counts a blob and keeps it among the candidates, of which the oldest stay when they become
// too many.
func (c *scan) add(it *layout.Item, limit int) {
	at := layout.Atime(&it.Stat)
	c.used += layout.Blocks(&it.Stat)
	c.files++
	if c.oldest.IsZero() || at.Before(c.oldest) {
		c.oldest = at
	}
	if at.After(c.newest) {
		c.newest = at
	}
	c.candidates = append(c.candidates, candidate{it.Key, at, layout.Blocks(&it.Stat)})
	if len(c.candidates) >= 2*limit {
		c.trim(limit)
	}
}

func (c *scan) trim(limit int) {
	slices.SortFunc(c.candidates, func(a, b candidate) int {
		if n := a.atime.Compare(b.atime); n != 0 {
			return n
		}
		return slices.Compare(a.key[:], b.key[:])
	})
	c.candidates = c.candidates[:min(len(c.candidates), limit)]
}
