package mounts

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

// Dir is a directory that is held from the check of a mount point to the mount. Its path may lead
// elsewhere in between, for the owner of a directory above can rename it or put a link in its
// place; the descriptor does not.
type Dir struct {
	file  *os.File
	path  string
	mount int // the id of the mount in which it lies
}

// holdFlags open a directory for its identity alone, also where it may not be read or hangs; a link
// is an error.
const holdFlags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_DIRECTORY | unix.O_CLOEXEC

// Hold opens the directory path, an absolute path without symbolic links. A path that leads
// elsewhere is ErrMoved.
func Hold(path string) (*Dir, error) {
	fd, err := unix.Open(path, holdFlags, 0)
	if errors.Is(err, unix.ENOTDIR) {
		if fi, lerr := os.Lstat(path); lerr == nil && fi.Mode()&os.ModeSymlink != 0 {
			return nil, fmt.Errorf("%w: %s is a symbolic link now", ErrMoved, path)
		}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	d := &Dir{file: os.NewFile(uintptr(fd), path), path: path}
	if d.mount, err = mountID(fd); err == nil {
		err = d.atPath()
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Path returns the path by which the directory was opened.
func (d *Dir) Path() string { return d.path }

// MountID returns the id of the mount in which the directory lies, as in the mount table.
func (d *Dir) MountID() int { return d.mount }

// Close lets go of the directory.
func (d *Dir) Close() error { return d.file.Close() }

// First returns the name of some entry of the directory; io.EOF when it is empty.
func (d *Dir) First() (string, error) {
	fd, err := unix.Openat(d.fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: d.path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), d.path)
	defer dir.Close()
	names, err := dir.Readdirnames(1)
	if err != nil {
		return "", err // of an empty directory io.EOF itself
	}
	return names[0], nil
}

// statfs asks the file system of the directory how it is, statfs(2), and returns the bare errno;
// where its process hangs this hangs, too.
func (d *Dir) statfs() error {
	var st unix.Statfs_t
	return unix.Fstatfs(d.fd(), &st)
}

func (d *Dir) fd() int { return int(d.file.Fd()) }

// magic is the path that leads to the directory itself, whatever its names lead to, proc_pid_fd(5).
func (d *Dir) magic() string { return "/proc/self/fd/" + strconv.Itoa(d.fd()) }

// atPath is ErrMoved unless the kernel knows the directory by its path.
func (d *Dir) atPath() error {
	now, err := os.Readlink(d.magic())
	if err != nil {
		return err
	}
	if now != d.path {
		return fmt.Errorf("%w: %s is %q now", ErrMoved, d.path, now)
	}
	return nil
}

// unmoved is ErrMoved unless the path still leads to the directory: the same file of the same
// mount, by the same names.
func (d *Dir) unmoved() error {
	if err := d.atPath(); err != nil {
		return err
	}
	again, err := Hold(d.path)
	if err != nil {
		return err
	}
	defer again.Close()
	var was, is unix.Stat_t
	if err := errors.Join(unix.Fstat(d.fd(), &was), unix.Fstat(again.fd(), &is)); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	if again.mount != d.mount || is.Dev != was.Dev || is.Ino != was.Ino {
		return fmt.Errorf("%w: %s is another directory now", ErrMoved, d.path)
	}
	return nil
}

// place is where something is mounted: the directory above, held, and the name there. Unlike the
// directory that a mount covers, it leads to the mount.
type place struct {
	above *os.File
	point string // absolute
}

// openPlace holds the place of the mount point, an absolute path without symbolic links.
func openPlace(point string) (*place, error) {
	above, err := Hold(filepath.Dir(point))
	if err != nil {
		return nil, err
	}
	return &place{above.file, point}, nil
}

// place holds the place where the directory stands, also when that has moved.
func (d *Dir) place() (*place, error) {
	now, err := os.Readlink(d.magic())
	if err != nil {
		return nil, err
	}
	fd, err := unix.Openat(d.fd(), "..", holdFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: now + "/..", Err: err}
	}
	return &place{os.NewFile(uintptr(fd), filepath.Dir(now)), now}, nil
}

// Close lets go of the place.
func (p *place) Close() error { return p.above.Close() }

// path leads to the place by way of the descriptor.
func (p *place) path() string {
	return "/proc/self/fd/" + strconv.Itoa(int(p.above.Fd())) + "/" + filepath.Base(p.point)
}

// root opens what is seen at the place, the root of its topmost mount. Nothing is asked of the file
// system. While it is open the mount is busy.
func (p *place) root() (*os.File, error) {
	fd, err := unix.Openat(int(p.above.Fd()), filepath.Base(p.point), holdFlags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p.point, Err: err}
	}
	return os.NewFile(uintptr(fd), p.point), nil
}

// mountID returns the id of the topmost mount at the place.
func (p *place) mountID() (int, error) {
	root, err := p.root()
	if err != nil {
		return 0, err
	}
	defer root.Close()
	return mountID(int(root.Fd()))
}

// mountID returns the id of the mount through which fd was opened, as in the mount table,
// proc_pid_fdinfo(5).
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
