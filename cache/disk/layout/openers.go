package layout

import (
	"context"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// OpenAt opens a name in dir. When the process has no descriptor left it sheds idle blobs and tries
// again.
func (f *Folder) OpenAt(
	ctx context.Context, dir int, name string, flags int, mode uint32,
) (int, error) {
	return f.Opening(ctx, func() (int, error) { return Open(dir, name, flags, mode) })
}

func (f *Folder) Opening(ctx context.Context, call func() (int, error)) (int, error) {
	wait := Backoff{Limit: f.env.Wait}
	for {
		fd, err := call()
		if !Exhausted(err) {
			return fd, err
		}
		f.env.Shed(8)
		if werr := wait.Wait(ctx); werr == ErrBusy {
			return -1, err
		} else if werr != nil {
			return -1, werr
		}
	}
}

// OpenBlob opens a file below blobs/ for reading: without a symlink on the way and without touching
// its atime.
func (f *Folder) OpenBlob(ctx context.Context, path string) (int, error) {
	flags := unix.O_RDONLY | unix.O_NOATIME
	for {
		fd, err := f.Opening(ctx, func() (int, error) { return openBeneath(f, path, flags) })
		// Only a file's owner may ask for O_NOATIME.
		if err == unix.EPERM && flags&unix.O_NOATIME != 0 {
			flags &^= unix.O_NOATIME
			continue
		}
		return fd, err
	}
}

func openBeneath(f *Folder, path string, flags int) (fd int, err error) {
	if !f.plain.Load() {
		how := unix.OpenHow{
			Flags:   uint64(flags | openFlags),
			Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
		}
		err = Restart(func() error {
			fd, err = unix.Openat2(f.Blobs, path, &how)
			return err
		})
		if err != unix.ENOSYS && (err != unix.EPERM || flags&unix.O_NOATIME != 0) {
			return fd, err
		}
		f.plain.Store(true)
	}
	dir, err := Open(f.Blobs, path[:2], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return Open(dir, path[3:], flags, 0)
}

// OpenShard opens the directory of the keys that begin with aa.
func (f *Folder) OpenShard(ctx context.Context, aa string) (int, error) {
	return f.OpenAt(ctx, f.Blobs, aa, unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
}

// MakeShard is OpenShard for one that is missing. A symlink or file in its place, which the cache
// never puts there, is removed.
func (f *Folder) MakeShard(ctx context.Context, aa string) (dir int, err error) {
	for range 3 {
		dir, err = f.OpenShard(ctx, aa)
		switch {
		case err == unix.ENOENT:
			err = makeDir(f.Blobs, aa)
		case NotDir(err):
			err = Remove(f.Blobs, aa)
		default:
			return dir, err
		}
		if err != nil && err != unix.EEXIST && err != unix.ENOENT {
			return -1, err
		}
	}
	return -1, ErrOr(err, ErrBusy)
}

// NewTmp makes and locks a file in tmp/ under a name of its own, for what is no blob.
func (f *Folder) NewTmp(ctx context.Context, base string) (fd int, name string, err error) {
	for range 10 {
		name = fmt.Sprintf("%s.%016x", base, rand.Uint64())
		fd, err = f.OpenAt(ctx, f.Tmp, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o400)
		if err != nil {
			return -1, "", OnDisk("create "+name, err)
		}
		ok, err := LockNew(fd)
		if ok && err == nil {
			return fd, name, nil
		}
		_ = unix.Close(fd)
		if err != nil {
			return -1, "", OnDisk("lock "+name, err)
		}
	}
	return -1, "", OnDisk("create "+name, ErrBusy)
}
