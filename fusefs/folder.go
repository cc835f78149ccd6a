package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Folder is a directory that is held from the check of a mount point to the mount. Its path may lead elsewhere in between,
// for the owner of a directory above can rename it or put a link in its place; the descriptor does not.
type Folder struct {
	file  *os.File
	path  string
	mount int // the id of the mount in which it lies
}

// holdFlags open a directory for its identity alone, also where it may not be read or hangs; a link is an error.
const holdFlags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_DIRECTORY | unix.O_CLOEXEC

// Hold opens the directory path, an absolute path without symbolic links. A path that leads elsewhere is ErrMoved.
func Hold(path string) (*Folder, error) {
	fd, err := unix.Open(path, holdFlags, 0)
	if errors.Is(err, unix.ENOTDIR) {
		if fi, lerr := os.Lstat(path); lerr == nil && fi.Mode()&os.ModeSymlink != 0 {
			return nil, fmt.Errorf("%w: %s is a symbolic link now", ErrMoved, path)
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := &Folder{file: os.NewFile(uintptr(fd), path), path: path}
	if f.mount, err = mountID(fd); err == nil {
		err = f.atPath()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Path returns the path by which the directory was opened.
func (f *Folder) Path() string { return f.path }

// MountID returns the id of the mount in which the directory lies, as package mounts knows it.
func (f *Folder) MountID() int { return f.mount }

// Close lets go of the directory.
func (f *Folder) Close() error { return f.file.Close() }

// First returns the name of some entry of the directory; io.EOF when it is empty.
func (f *Folder) First() (string, error) {
	fd, err := unix.Openat(f.fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: f.path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), f.path)
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if err != nil {
		return "", err // of an empty directory io.EOF itself
	}
	return names[0], nil
}

// Statfs asks the file system of the directory how it is, statfs(2), and returns the bare errno; where its process hangs
// this hangs, too.
func (f *Folder) Statfs() error {
	var st unix.Statfs_t
	return unix.Fstatfs(f.fd(), &st)
}

func (f *Folder) fd() int { return int(f.file.Fd()) }

// magic is the path that leads to the directory itself, whatever its names lead to, proc_pid_fd(5).
func (f *Folder) magic() string { return "/proc/self/fd/" + strconv.Itoa(f.fd()) }

// atPath is ErrMoved unless the kernel knows the directory by its path.
func (f *Folder) atPath() error {
	now, err := os.Readlink(f.magic())
	if err != nil {
		return err
	}
	if now != f.path {
		return fmt.Errorf("%w: %s is %q now", ErrMoved, f.path, now)
	}
	return nil
}

// unmoved is ErrMoved unless the path still leads to the directory: the same file of the same mount, by the same names.
func (f *Folder) unmoved() error {
	if err := f.atPath(); err != nil {
		return err
	}
	again, err := Hold(f.path)
	if err != nil {
		return err
	}
	defer again.Close()
	var was, is unix.Stat_t
	if err := errors.Join(unix.Fstat(f.fd(), &was), unix.Fstat(again.fd(), &is)); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if again.mount != f.mount || is.Dev != was.Dev || is.Ino != was.Ino {
		return fmt.Errorf("%w: %s is another directory now", ErrMoved, f.path)
	}
	return nil
}

// spot is a place where something is mounted: the directory above, held, and the name there. Unlike the directory that a
// mount covers, it leads to the mount.
type spot struct {
	above *os.File
	point string // absolute
}

// openSpot holds the place of the mount point, an absolute path without symbolic links.
func openSpot(point string) (*spot, error) {
	above, err := Hold(filepath.Dir(point))
	if err != nil {
		return nil, err
	}
	return &spot{above.file, point}, nil
}

// spot holds the place where the directory stands, also when that has moved.
func (f *Folder) spot() (*spot, error) {
	now, err := os.Readlink(f.magic())
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(f.fd(), "..", holdFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: now + "/..", Err: err}
	}
	return &spot{os.NewFile(uintptr(fd), filepath.Dir(now)), now}, nil
}

// Close lets go of the place.
func (s *spot) Close() error { return s.above.Close() }

// path leads to the place by way of the descriptor.
func (s *spot) path() string {
	return "/proc/self/fd/" + strconv.Itoa(int(s.above.Fd())) + "/" + filepath.Base(s.point)
}

// root opens what is seen at the place, the root of its topmost mount. Nothing is asked of the file system. While it is
// open the mount is busy.
func (s *spot) root() (*os.File, error) {
	fd, err := unix.Openat(int(s.above.Fd()), filepath.Base(s.point), holdFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: s.point, Err: err}
	}
	return os.NewFile(uintptr(fd), s.point), nil
}

// mountID returns the id of the topmost mount at the place.
func (s *spot) mountID() (int, error) {
	root, err := s.root()
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return mountID(int(root.Fd()))
}

// mountID returns the id of the mount through which fd was opened, as in the mount table, proc_pid_fdinfo(5).
func mountID(fd int) (int, error) {
	name := "/proc/self/fdinfo/" + strconv.Itoa(fd)
	info, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(info) {
		if v, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(v)))
		}
	}
	return 0, fmt.Errorf("%s: no mnt_id: %w", name, io.ErrUnexpectedEOF)
}
