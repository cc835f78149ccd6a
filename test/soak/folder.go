package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// wreck spoils what a cache folder holds beside its blobs. It excuses nothing.
type wreck struct {
	what  string
	spoil func(c *store, st step) error
	mends func(c *store) bool // tells whether the cache has seen it and put it right
}

// Name is the kind of fault.
func (f wreck) Name() string { return "cache " + f.what }

// Strike acts when the cache puts it right while others read and fill.
func (f wreck) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	c := s.caches[0]
	if err := f.spoil(c, st); err != nil {
		return false, err
	}
	// The folder is looked at every 2.5 s; what evicts or fills looks at the rest.
	if !until(ctx, bound, func() bool { return f.mends(c) }) && ctx.Err() == nil {
		return false, fmt.Errorf("not mended within %v", bound)
	}
	return true, nil
}

// wrecks are the ways to spoil a folder.
func wrecks() []fault {
	leftover := strings.Repeat("0f", 32) // a blob that no image has, so that no fill starts it over
	return []fault{
		wreck{"usage garbage", func(c *store, st step) error {
			return overwrite(c.dir+"/usage",
				[]byte([]string{"", "x", strings.Repeat("9", 57) + "\n", "-1 \n"}[st.rng.IntN(4)]))
		}, func(c *store) bool {
			var n int64
			raw, _ := os.ReadFile(c.dir + "/usage")
			_, err := fmt.Sscanf(string(raw), "%020d", &n)
			return err == nil && len(raw) == 58 && n <= c.size
		}},
		wreck{"leftover of a dead fill", func(c *store, st step) error {
			return os.WriteFile(filepath.Join(c.dir, "tmp", leftover),
				make([]byte, st.rng.IntN(100<<10)), 0o400)
		}, func(c *store) bool {
			_, err := os.Lstat(filepath.Join(c.dir, "tmp", leftover))
			return errors.Is(err, os.ErrNotExist)
		}},
		wreck{"folder moved away", func(c *store, _ step) error {
			return os.Rename(c.dir, fmt.Sprint(c.dir, moved, time.Now().UnixNano()))
		}, func(c *store) bool {
			_, blobs := c.sum()
			return blobs > 0
		}},
	}
}

// moved marks a cache folder that was moved away. Fills under way may go on in it for seconds.
const moved = ".moved-"

// clean removes what was moved away, when all is at rest.
func (c *store) clean() error {
	names, err := filepath.Glob(c.dir + moved + "*")
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(name))
	}
	return err
}

// overwrite puts other bytes into a file that is there.
func overwrite(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
