package cache

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Info describes a cache folder, as found by a scan of it.
type Info struct {
	Dir            string
	Limit          int64     // Options.Size, in bytes
	Used           int64     // bytes on disk of all that the folder holds, fills under way excepted
	Files          int       // blobs
	Partial        int       // files of fills under way, and leftovers
	Free           int64     // bytes that this user may still write to the file system
	Oldest, Newest time.Time // last use of the least and of the most recently used blob; zero when there is none
	FileSystem     string    // its type, "ext4"; a hexadecimal number for one without a name here
	Warning        string    // what is wrong with the place; "" when nothing is
}

// Info scans the folder.
func (s *Store) Info(ctx context.Context) (Info, error) {
	f, err := s.disk.use()
	if err != nil {
		return Info{}, err
	}
	defer s.disk.done(f)
	c, err := s.census(ctx, f, false, false)
	if err != nil {
		return Info{}, fmt.Errorf("cache: info: %w", err)
	}
	var st unix.Statfs_t
	if err := restart(func() error { return unix.Fstatfs(f.root, &st) }); err != nil {
		return Info{}, fmt.Errorf("cache: info: %w", err)
	}
	partial, err := dirNames(f.tmp, -1)
	if err != nil {
		return Info{}, fmt.Errorf("cache: info: %w", err)
	}
	name, warning := fileSystem(int64(st.Type))
	return Info{
		Dir: s.opt.Dir, Limit: s.opt.Size, Used: c.used, Files: c.files, Partial: len(partial),
		Free: int64(st.Bavail) * int64(st.Bsize), Oldest: c.oldest, Newest: c.newest,
		FileSystem: name, Warning: warning,
	}, nil
}

// Place says, without a scan and without making anything, on which file system dir is, how much room it has and what is
// wrong with a cache there.
func Place(dir string) (Info, error) {
	var st unix.Statfs_t
	if err := restart(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return Info{}, fmt.Errorf("cache: %w", diskError("statfs "+dir, err))
	}
	name, warning := fileSystem(int64(st.Type))
	return Info{Dir: dir, Free: int64(st.Bavail) * int64(st.Bsize), FileSystem: name, Warning: warning}, nil
}

// fileSystem names a file system by its number in statfs(2), and says what is wrong with a cache on it.
func fileSystem(magic int64) (name, warning string) {
	const remote = "the cache is on a network file system, where locks and times are not reliable: choose a folder on a local disk with --cache-dir"
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

// Report says what Verify found.
type Report struct {
	Checked int      // blobs hashed
	Bytes   int64    // their bytes
	Damaged int      // blobs that were damaged and are dropped
	Names   []string // their digests as "sha256:…", the first 100
}

const maxNames = 100

// Verify hashes every blob and drops the damaged ones. Blobs that are evicted meanwhile are left out.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	var r Report
	f, err := s.disk.use()
	if err != nil {
		return r, err
	}
	defer s.disk.done(f)
	enter := func(*unix.Stat_t) {}
	err = s.walk(ctx, f, enter, func(it *item) error {
		if it.sums {
			return nil
		}
		err := s.verifyBlob(ctx, f, it)
		switch {
		case err == nil:
			r.Checked++
			r.Bytes += it.st.Size
		case err == unix.ENOENT:
		case isDamage(err):
			r.Checked++
			r.Damaged++
			if len(r.Names) < maxNames {
				r.Names = append(r.Names, fmt.Sprintf("sha256:%x", it.key))
			}
			s.drop(ctx, f, it.key, it.st.Ino, err.Error())
			s.table.discardKey(it.key)
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
func (s *Store) verifyBlob(ctx context.Context, f *folder, it *item) error {
	fd, err := s.openBlob(ctx, f, blobPath(it.key))
	switch err {
	case nil:
	case unix.ELOOP, unix.ENXIO, unix.EACCES:
		return damage("not a file of this cache")
	default:
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &it.st); err != nil {
		return err
	}
	if !s.ours(&it.st) {
		return damage("not a regular file of this user")
	}
	sums, err := s.hashFile(ctx, fd, it.key, it.st.Size)
	if err == nil && it.st.Size > s.lim.small && string(s.loadSums(ctx, f, it.key, it.st.Size)) != string(sums) {
		s.repairSums(ctx, f, it.key, it.st.Size, sums)
	}
	return err
}
