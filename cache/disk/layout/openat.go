package layout

import (
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Every name below the cache folder is opened relative to a descriptor and without following
// symlinks. O_NONBLOCK keeps a planted FIFO from stopping the open; regular files do not care.
const openFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// Restart repeats a system call that a signal interrupted.
func Restart(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// Open opens a name in dir. A new file gets mode. So does, unless mode is 0, a file or directory
// that its owner may not open: a process was killed between making it and its chmod.
func Open(dir int, name string, flags int, mode uint32) (fd int, err error) {
	open := func() error {
		fd, err = unix.Openat(dir, name, flags|openFlags, mode)
		return err
	}
	err = Restart(open)
	if err == unix.EACCES && mode != 0 && regain(dir, name, mode) == nil {
		err = Restart(open)
	}
	return fd, err
}

// regain gives a file or directory of this user its mode back. It follows no symlink.
func regain(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|openFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode) // fchmod(2) takes no O_PATH
}

// makeDir makes a directory of mode 0700, also under a umask that takes from the owner.
func makeDir(at int, name string) error {
	if err := unix.Mkdirat(at, name, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&0o777 == 0o700 {
		return err // as a rule, and without a descriptor, of which there may be few
	}
	// Another process may have put a symlink in its place since, which chmod would follow.
	fd, err := Open(at, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmodat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), 0o700, 0)
}

// OpenState opens a file that processes share, usage or evict.lock, making it when it is missing.
func OpenState(root int, name string) (int, error) {
	fd, err := Open(root, name, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&0o777 != 0o600 { // a umask as above
		err = unix.Fchmod(fd, 0o600)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Remove unlinks a name, or an empty directory that sits in its place.
func Remove(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == unix.EISDIR {
		err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	}
	return err
}

// TryLock takes an flock if it is free.
func TryLock(fd int) (bool, error) {
	err := Restart(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	return err == nil, err
}

// IsCurrent says whether dir's name is still the file that fd has open.
func IsCurrent(fd, dir int, name string) (bool, error) {
	var mine, there unix.Stat_t
	if err := unix.Fstat(fd, &mine); err != nil {
		return false, err
	}
	switch err := unix.Fstatat(dir, name, &there, unix.AT_SYMLINK_NOFOLLOW); err {
	case nil:
		return mine.Ino == there.Ino && mine.Dev == there.Dev, nil
	case unix.ENOENT:
		return false, nil
	default:
		return false, err
	}
}

// ReadFull reads len(p) bytes at off, or fewer at the end of the file.
func ReadFull(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(fd, p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

// WriteFull writes p at off and says how much of it was written when that fails.
func WriteFull(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pwrite(fd, p[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// SetTimes is futimens(2). A zero mtime leaves it as it is.
func SetTimes(fd int, atime, mtime time.Time) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	for i, t := range []time.Time{atime, mtime} {
		if t.IsZero() {
			continue
		}
		ts, err := unix.TimeToTimespec(t)
		if err != nil {
			return err
		}
		times[i] = ts
	}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0,
		uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Blocks returns the bytes that a file takes on disk.
func Blocks(st *unix.Stat_t) int64 { return st.Blocks * 512 }

// Atime returns the time of the last use.
func Atime(st *unix.Stat_t) time.Time { return time.Unix(st.Atim.Unix()) }

// LockNew locks a file that this process has just made. It says no when another process has removed
// the file as a leftover: only the holder of the lock unlinks, so a locked file with a name is the
// one at the path. A file that the umask made unreadable gets its mode, so that the processes that
// wait for it can open it.
func LockNew(fd int) (bool, error) {
	if ok, err := TryLock(fd); !ok || err != nil {
		return false, err
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && st.Mode&0o400 == 0 {
		_ = unix.Fchmod(fd, 0o400)
	}
	return st.Nlink > 0, err
}

// NotPartial reports whether the open of a name in tmp/ failed because it is no partial file of
// this user: a symlink, a socket, a file of another user.
func NotPartial(err error) bool {
	return err == unix.ELOOP || err == unix.ENXIO || err == unix.EACCES
}

// DirNames reads up to n names of an open directory, from its start; n -1 means all.
func DirNames(dir, n int) ([]string, error) {
	fd, err := Open(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), ".")
	defer d.Close()
	names, err := d.Readdirnames(n)
	if n > 0 && len(names) == 0 {
		return nil, nil // io.EOF
	}
	return names, err
}
