package disk

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// VerifyMode says when the content of a cached blob is hashed. Size, owner, mode and time stamp are
// checked in every mode.
type VerifyMode int

const (
	// VerifyFirst is at its first use in a process; a blob over 8 MiB by the chunks that are read.
	VerifyFirst VerifyMode = iota
	// VerifyAlways is each time it is looked up; over 8 MiB at each read, the chunks that are read.
	VerifyAlways
)

// String returns the name that ParseVerifyMode reads.
func (m VerifyMode) String() string {
	switch m {
	case VerifyFirst:
		return "first"
	case VerifyAlways:
		return "always"
	}
	return fmt.Sprintf("VerifyMode(%d)", int(m))
}

// ParseVerifyMode reads "first" or "always".
func ParseVerifyMode(name string) (VerifyMode, error) {
	for m := VerifyFirst; m <= VerifyAlways; m++ {
		if m.String() == name {
			return m, nil
		}
	}
	return 0, fmt.Errorf("cache: verify mode %q: want first or always", name)
}

// Report says what Verify found.
type Report struct {
	Checked int      // blobs hashed
	Bytes   int64    // their bytes
	Damaged int      // blobs that were damaged and are dropped
	Names   []string // their digests as "sha256:…", the first 100
}

const maxNames = 100

// Verify hashes every blob and drops the damaged ones, of each of which it tells dropped. Blobs
// that are evicted meanwhile are left out.
func (d *Dir) Verify(ctx context.Context, dropped func(key [32]byte)) (Report, error) {
	var r Report
	f, err := d.use()
	if err != nil {
		return r, err
	}
	defer d.done(f)
	enter := func(*unix.Stat_t) {}
	err = f.Walk(ctx, enter, func(it *layout.Item) error {
		if it.Sums {
			return nil
		}
		err := d.check.verifyBlob(ctx, f, it)
		switch {
		case err == nil:
			r.Checked++
			r.Bytes += it.Stat.Size
		case err == unix.ENOENT:
		case isDamage(err):
			r.Checked++
			r.Damaged++
			if len(r.Names) < maxNames {
				r.Names = append(r.Names, fmt.Sprintf("sha256:%x", it.Key))
			}
			d.check.drop(ctx, f, it.Key, it.Stat.Ino, err.Error())
			dropped(it.Key)
		default:
			return err
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("cache: verify: %w", err)
	}
	return r, nil
}

func isDamage(err error) bool {
	_, ok := err.(damage)
	return ok
}

// verifyBlob hashes one file, and repairs the sidecar of a sound one.
func (c *checker) verifyBlob(ctx context.Context, f *layout.Folder, it *layout.Item) error {
	fd, err := f.OpenBlob(ctx, layout.BlobPath(it.Key))
	switch err {
	case nil:
	case unix.ELOOP, unix.ENXIO, unix.EACCES:
		return damage("not a file of this cache")
	default:
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &it.Stat); err != nil {
		return err
	}
	if !ours(&it.Stat) {
		return damage("not a regular file of this user")
	}
	sums, err := c.hashFile(ctx, fd, it.Key, it.Stat.Size)
	if err == nil && it.Stat.Size > c.d.lim.Small &&
		string(c.loadSums(ctx, f, it.Key, it.Stat.Size)) != string(sums) {
		c.repairSums(ctx, f, it.Key, it.Stat.Size, sums)
	}
	return err
}
