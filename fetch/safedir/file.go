package safedir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Stat returns what lstat(2) tells of a name in d.
func (d *Dir) Stat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	return st, d.error("stat", name, unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW))
}

// OpenFile opens a regular file in d, which root or the user must own and which must have no other
// name. With O_CREATE in flags it makes the file when it is missing. It follows no symlink and does
// not wait for a FIFO.
func (d *Dir) OpenFile(name string, flags int, mode fs.FileMode) (*os.File, error) {
	// Opening a device can have effects of its own, so what is there is looked at first.
	st, err := d.Stat(name)
	if err == nil {
		err = d.checkFile(name, &st)
	}
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && flags&os.O_CREATE != 0) {
		return nil, err
	}
	fd, err := d.openat(name, flags|unix.O_NONBLOCK, uint32(mode.Perm()))
	if err == unix.ELOOP || err == unix.ENXIO {
		// It was made since Stat.
		return nil, refused(filepath.Join(d.path, name), "it is not a regular file")
	}
	if err != nil {
		return nil, d.error("open", name, err)
	}
	if err = unix.Fstat(fd, &st); err == nil {
		err = d.checkFile(name, &st)
	}
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, d.error("open", name, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.path, name)), nil
}

// Rename gives a file in d another name in d.
func (d *Dir) Rename(from, to string) error {
	if !isName(to) {
		return d.error("rename", to, unix.EINVAL)
	}
	return d.error("rename", from, unix.Renameat(d.fd, from, d.fd, to))
}

// Remove removes a name in d that is not a directory's.
func (d *Dir) Remove(name string) error {
	return d.error("remove", name, unix.Unlinkat(d.fd, name, 0))
}

// checkFile says why a file is not one that the user may rely on.
func (d *Dir) checkFile(name string, st *unix.Stat_t) error {
	path := filepath.Join(d.path, name)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return refused(path, "it is not a regular file but a %s", kind(st))
	case !trusted(st.Uid, d.uid):
		return refused(path, "it belongs to user %d", st.Uid)
	case st.Nlink != 1:
		return refused(path, "it has %d names (hard links)", st.Nlink)
	}
	return nil
}

func (d *Dir) openat(name string, flags int, mode uint32) (fd int, err error) {
	if !isName(name) {
		return -1, unix.EINVAL
	}
	for {
		fd, err = unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func isName(s string) bool { return s != "" && s != "." && s != ".." && !strings.Contains(s, "/") }

func kind(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}
