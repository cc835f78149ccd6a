package disk

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// Info describes a cache folder, as found by a scan of it.
type Info struct {
	Dir            string
	Limit          int64     // Options.Size, in bytes
	Used           int64     // bytes on disk of all that the folder holds, fills under way excepted
	Files          int       // blobs
	Partial        int       // files of fills under way, and leftovers
	Free           int64     // bytes that this user may still write to the file system
	Oldest, Newest time.Time // last use of the least and the most recently used blob; zero: none
	FileSystem     string    // its type, "ext4"; a hexadecimal number for one without a name here
	Warning        string    // what is wrong with the place; "" when nothing is
}

// Info scans the folder.
func (d *Dir) Info(ctx context.Context) (Info, error) {
	f, err := d.use()
	if err != nil {
		return Info{}, err
	}
	defer d.done(f)
	c, err := scanAll(ctx, f, d.lim.Candidates, false, false)
	if err != nil {
		return Info{}, fmt.Errorf("cache: info: %w", err)
	}
	var st unix.Statfs_t
	if err := layout.Restart(func() error { return unix.Fstatfs(f.Root, &st) }); err != nil {
		return Info{}, fmt.Errorf("cache: info: %w", err)
	}
	partial, err := layout.DirNames(f.Tmp, -1)
	if err != nil {
		return Info{}, fmt.Errorf("cache: info: %w", err)
	}
	name, warning := fileSystem(int64(st.Type))
	return Info{
		Dir: d.opt.Dir, Limit: d.opt.Size, Used: c.used, Files: c.files, Partial: len(partial),
		Free: int64(st.Bavail) * int64(st.Bsize), Oldest: c.oldest, Newest: c.newest,
		FileSystem: name, Warning: warning,
	}, nil
}

// Place says, without a scan and without making anything, on which file system dir is, how much
// room it has and what is wrong with a cache there.
func Place(dir string) (Info, error) {
	var st unix.Statfs_t
	if err := layout.Restart(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return Info{}, fmt.Errorf("cache: %w", layout.OnDisk("statfs "+dir, err))
	}
	name, warning := fileSystem(int64(st.Type))
	free := int64(st.Bavail) * int64(st.Bsize)
	return Info{Dir: dir, Free: free, FileSystem: name, Warning: warning}, nil
}

// fileSystem names a file system by its number in statfs(2), and says what is wrong with a cache on
// it.
func fileSystem(magic int64) (name, warning string) {
	const remote = "the cache is on a network file system, " +
		"where locks and times are not reliable: choose a folder on a local disk with --cache-dir"
	switch uint32(magic) {
	case 0xef53:
		return "ext4", ""
	case 0x58465342:
		return "xfs", ""
	case 0x9123683e:
		return "btrfs", ""
	case 0x2fc12fc1:
		return "zfs", ""
	case 0xf2f52010:
		return "f2fs", ""
	case 0xca451a4e:
		return "bcachefs", ""
	case 0x01021994:
		return "tmpfs", ""
	case 0x794c7630:
		return "overlayfs", ""
	case 0x65735546:
		return "fuse", ""
	case 0x6969:
		return "nfs", remote
	case 0x517b, 0xff534d42, 0xfe534d42:
		return "smb", remote
	case 0x01021997:
		return "9p", remote
	case 0x00c36400:
		return "ceph", remote
	}
	return fmt.Sprintf("%#x", uint32(magic)), ""
}

// Prune evicts the least recently used blobs until at most target bytes are on disk; 0 evicts every
// blob and removes leftovers of dead fills. Fills under way and open files are not disturbed. It
// returns the bytes and blobs that it removed.
func (d *Dir) Prune(ctx context.Context, target int64) (freed int64, n int, err error) {
	f, err := d.use()
	if err != nil {
		return 0, 0, err
	}
	defer d.done(f)
	goal := func(int64) int64 { return max(0, target) }
	return d.quota.evict(ctx, f, eviction{goal: goal, force: true})
}

// Clear removes every blob, record and leftover and keeps the folder. Fills under way go on, and
// open files live until they are closed.
func (d *Dir) Clear(ctx context.Context) error {
	f, err := d.use()
	if err != nil {
		return err
	}
	defer d.done(f)
	if err := clearRecords(ctx, f); err != nil {
		return err
	}
	_, _, err = d.quota.evict(ctx, f, eviction{goal: func(int64) int64 { return 0 }, force: true})
	return err
}
