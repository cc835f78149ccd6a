package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Every name below the cache folder is opened relative to a descriptor and without following symlinks. O_NONBLOCK
// keeps a planted FIFO from stopping the open; regular files do not care.
const openFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

const hexDigits = 2 * len(digest{})

// blobPath is a blob's name below blobs/.
func blobPath(key digest) string {
	var b [3 + hexDigits]byte
	hex.Encode(b[:2], key[:1])
	b[2] = '/'
	hex.Encode(b[3:], key[:])
	return string(b[:])
}

func blobName(key digest) string { return hex.EncodeToString(key[:]) }

// parseName is blobName backwards.
func parseName(name string) (key digest, ok bool) {
	if len(name) != hexDigits {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(name))
	return key, err == nil && blobName(key) == name
}

// trouble is an error of the cache's own file system. Blobs are then served from memory as far as that goes.
type trouble struct {
	op  string
	err error
}

func (t *trouble) Error() string { return "cache disk: " + t.op + ": " + t.err.Error() }
func (t *trouble) Unwrap() error { return t.err }

func isTrouble(err error) bool {
	if err == nil {
		return false
	}
	var t *trouble
	return errors.As(err, &t)
}

// diskError makes err the disk's, unless it is nil or only says that the caller's time is over.
func diskError(op string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isTrouble(err) {
		return err
	}
	return &trouble{op, err}
}

// full says that room on the disk may help.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// vanished says that a directory was deleted or replaced under its descriptor.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOTDIR)
}

func exhausted(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

// restart repeats a system call that a signal interrupted.
func restart(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// openat opens a name in dir. When the process has no descriptor left it closes idle blobs and tries again.
func (s *Store) openat(ctx context.Context, dir int, name string, flags int, mode uint32) (int, error) {
	return s.opening(ctx, func() (int, error) { return rawOpen(dir, name, flags, mode) })
}

func (s *Store) opening(ctx context.Context, call func() (int, error)) (int, error) {
	wait := backoff{limit: s.lim.patient}
	for {
		fd, err := call()
		if !exhausted(err) {
			return fd, err
		}
		s.table.shed(8)
		if werr := wait.wait(ctx); werr == errBusy {
			return -1, err
		} else if werr != nil {
			return -1, werr
		}
	}
}

// rawOpen opens a name in dir. A new file gets mode. So does, unless mode is 0, a file or directory
// that its owner may not open: a process was killed between making it and its chmod.
func rawOpen(dir int, name string, flags int, mode uint32) (fd int, err error) {
	open := func() error {
		fd, err = unix.Openat(dir, name, flags|openFlags, mode)
		return err
	}
	err = restart(open)
	if err == unix.EACCES && mode != 0 && regain(dir, name, mode) == nil {
		err = restart(open)
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

// openBlob opens a file below blobs/ for reading: without a symlink on the way and without touching its atime.
func (s *Store) openBlob(ctx context.Context, f *folder, path string) (int, error) {
	flags := unix.O_RDONLY | unix.O_NOATIME
	for {
		fd, err := s.opening(ctx, func() (int, error) { return openBeneath(f, path, flags) })
		if err == unix.EPERM && flags&unix.O_NOATIME != 0 { // only a file's owner may ask for O_NOATIME
			flags &^= unix.O_NOATIME
			continue
		}
		return fd, err
	}
}

func openBeneath(f *folder, path string, flags int) (fd int, err error) {
	if !f.plain.Load() {
		how := unix.OpenHow{Flags: uint64(flags | openFlags), Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH}
		err = restart(func() error {
			fd, err = unix.Openat2(f.blobs, path, &how)
			return err
		})
		if err != unix.ENOSYS && (err != unix.EPERM || flags&unix.O_NOATIME != 0) {
			return fd, err
		}
		f.plain.Store(true)
	}
	dir, err := rawOpen(f.blobs, path[:2], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return rawOpen(dir, path[3:], flags, 0)
}

// openShard opens the directory of the keys that begin with aa.
func (s *Store) openShard(ctx context.Context, f *folder, aa string) (int, error) {
	return s.openat(ctx, f.blobs, aa, unix.O_RDONLY|unix.O_DIRECTORY, 0o700)
}

// makeShard is openShard for one that is missing. A symlink or file in its place, which only somebody else can have
// put there, is removed.
func (s *Store) makeShard(ctx context.Context, f *folder, aa string) (dir int, err error) {
	for range 3 {
		dir, err = s.openShard(ctx, f, aa)
		switch {
		case err == unix.ENOENT:
			err = makeDir(f.blobs, aa)
		case notDir(err):
			err = remove(f.blobs, aa)
		default:
			return dir, err
		}
		if err != nil && err != unix.EEXIST && err != unix.ENOENT {
			return -1, err
		}
	}
	return -1, errOr(err, errBusy)
}

// notDir says that a symlink or a file sits in a directory's place.
func notDir(err error) bool { return err == unix.ELOOP || err == unix.ENOTDIR }

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// makeDir makes a directory of mode 0700, also under a umask that takes from the owner.
func makeDir(at int, name string) error {
	if err := unix.Mkdirat(at, name, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Mode&0o777 == 0o700 {
		return err
	}
	// Others may have put a symlink in its place since, which chmod would follow. Only here is a
	// descriptor needed, which the process may be short of.
	fd, err := rawOpen(at, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmodat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), 0o700, 0)
}

// openState opens a file that processes share, usage or evict.lock, making it when it is missing.
func openState(root int, name string) (int, error) {
	fd, err := rawOpen(root, name, unix.O_RDWR|unix.O_CREAT, 0o600)
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

// remove unlinks a name, or an empty directory that sits in its place.
func remove(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == unix.EISDIR {
		err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	}
	return err
}

// tryLock takes an flock if nobody has it.
func tryLock(fd int) (bool, error) {
	err := restart(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return false, nil
	}
	return err == nil, err
}

// current says whether dir's name is still the file that fd has open.
func current(fd, dir int, name string) (bool, error) {
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

// preadFull reads len(p) bytes at off, or fewer at the end of the file.
func preadFull(fd int, p []byte, off int64) (n int, err error) {
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

// pwriteFull writes p at off and says how much of it was written when that fails.
func pwriteFull(fd int, p []byte, off int64) (n int, err error) {
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

// setTimes is futimens(2). A zero mtime leaves it as it is.
func setTimes(fd int, atime, mtime time.Time) error {
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
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func blocks(st *unix.Stat_t) int64 { return st.Blocks * 512 }

func atime(st *unix.Stat_t) time.Time { return time.Unix(st.Atim.Unix()) }

func badFile(key digest, what string) error {
	return fmt.Errorf("cache: blob %x: %w: %s", key, ErrDamaged, what)
}
