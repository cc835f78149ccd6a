package safedir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symlinks a path may lead through, as in the kernel.
const maxLinks = 40

// walker is the state of Open: at is the directory that was reached.
type walker struct {
	at    *Dir
	st    unix.Stat_t // at's
	flags Flag
	rest  []string // the components that are left
	links int
}

func open(path string, uid int, flags Flag, file bool) (_ *Dir, name string, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, "", err
	}
	w := &walker{at: &Dir{fd: -1, uid: uid}, flags: flags, rest: split(path)}
	defer func() {
		if err != nil {
			_ = w.at.Close() // opened for its place only
		}
	}()
	if err := w.root(); err != nil {
		return nil, "", err
	}
	for len(w.rest) > 0 {
		name, w.rest = w.rest[0], w.rest[1:]
		if file && len(w.rest) == 0 && name != ".." {
			if st, err := w.at.Stat(name); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
				return w.at, name, nil // what else there is to say of it, OpenFile says
			}
		}
		if err := w.step(name); err != nil {
			return nil, "", err
		}
	}
	if file {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: unix.EISDIR}
	}
	return w.at, "", nil
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// root begins anew at the root directory.
func (w *walker) root() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/", Err: err}
	}
	return w.enter(fd, "/")
}

// step goes into the directory name, or adds what a symlink says to the rest. O_DIRECTORY has the
// kernel mount what is mounted on demand there.
func (w *walker) step(name string) error {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	path := filepath.Join(w.at.path, name)
	fd, err := unix.Openat(w.at.fd, name, flags|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT && w.flags&Create != 0 {
		if err = unix.Mkdirat(w.at.fd, name, 0o700); err != nil && err != unix.EEXIST {
			return &os.PathError{Op: "mkdir", Path: path, Err: err}
		}
		fd, err = unix.Openat(w.at.fd, name, flags|unix.O_DIRECTORY, 0)
	}
	if err == nil {
		return w.enter(fd, path)
	}
	if err == unix.ENOTDIR {
		if fd, err = unix.Openat(w.at.fd, name, flags, 0); err == nil {
			err = w.follow(fd, path)
			_ = unix.Close(fd)
			return err
		}
	}
	return &os.PathError{Op: "open", Path: path, Err: err}
}

// enter makes the directory fd, which it takes over, the one that was reached.
func (w *walker) enter(fd int, path string) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	} else if os.Geteuid() == 0 {
		err = w.mayPass(&st, path)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	if w.at.fd >= 0 {
		_ = unix.Close(w.at.fd)
	}
	w.at.fd, w.at.path, w.st = fd, path, st
	return nil
}

func (w *walker) mayPass(st *unix.Stat_t, path string) error {
	if !trusted(st.Uid, w.at.uid) {
		return refused(path, "this directory belongs to user %d", st.Uid)
	}
	if st.Mode&(unix.S_IWOTH|unix.S_ISVTX) == unix.S_IWOTH && w.flags&Shared == 0 {
		return refused(path, "everybody may write to this directory (mode %04o)", st.Mode&0o7777)
	}
	return nil
}

// follow goes the way of the symlink fd.
func (w *walker) follow(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return &os.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	if err := w.mayFollow(fd, &st, path); err != nil {
		return err
	}
	if w.links++; w.links > maxLinks {
		return &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", target)
	if err != nil {
		return &os.PathError{Op: "readlink", Path: path, Err: err}
	}
	to := string(target[:n])
	w.rest = append(split(to), w.rest...)
	if strings.HasPrefix(to, "/") {
		return w.root()
	}
	return nil
}

func (w *walker) mayFollow(fd int, st *unix.Stat_t, path string) error {
	root := os.Geteuid() == 0
	if !trusted(st.Uid, w.at.uid) && (root || st.Uid != w.st.Uid) {
		return refused(path, "this symlink belongs to user %d", st.Uid)
	}
	if w.st.Mode&unix.S_IWOTH != 0 && st.Nlink > 1 {
		return refused(path, "this symlink has %d names: it may be put here by anybody", st.Nlink)
	}
	var on unix.Statfs_t
	if root && unix.Fstatfs(fd, &on) == nil && on.Type == unix.FUSE_SUPER_MAGIC {
		return refused(path, "this symlink is in a FUSE file system, which may lie about its owner")
	}
	return nil
}

func trusted(owner uint32, uid int) bool {
	return owner == 0 || int(owner) == uid || owner == overflowUID && foreignOwners()
}

// overflowUID is how a user namespace shows users that it does not map, the root of the machine
// among them (/proc/sys/kernel/overflowuid).
const overflowUID = 65534

// foreignOwners says whether overflowUID stands for such users: the namespace has no user of that
// number.
var foreignOwners = sync.OnceValue(func() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		var first, outside, count uint64
		if n, err := fmt.Sscan(line, &first, &outside, &count); n != 3 || err != nil {
			return false
		}
		if first <= overflowUID && overflowUID < first+count {
			return false
		}
	}
	return true
})
