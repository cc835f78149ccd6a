package layout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safedir"
)

const Tag = "Signature: 8a477f597d28d172789f06886806bc55\n" +
	"# This file marks a cache folder of pfmount, which may be deleted at any time " +
	"(https://bford.info/cachedir/).\n"

// Env is what a folder asks for when the process has no descriptor left.
type Env struct {
	Wait time.Duration // longest wait for a descriptor
	Shed func(n int)   // closes up to n files
}

// Folder is one incarnation of the cache folder, held open: what happens to its path does not move
// it.
type Folder struct {
	env              Env
	Root, Blobs, Tmp int
	Usage            int // guarded by quota.token
	Dev, Ino         uint64
	plain            atomic.Bool // there is no openat2 (Linux before 5.6, old container profiles)
	Refs             int         // guarded by Dir.mu
}

func (f *Folder) Close() {
	for _, fd := range []int{f.Root, f.Blobs, f.Tmp, f.Usage} {
		if fd >= 0 {
			_ = unix.Close(fd) // of a directory or written with pwrite: nothing is left to report
		}
	}
}

// Resolve returns the path to open for dir. A symlink in the user's own name is followed, here and
// never again.
func Resolve(dir string) (string, error) {
	st, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && st.Mode()&os.ModeSymlink == 0 {
		return dir, nil
	}
	if err != nil {
		return "", fmt.Errorf("cache: %w", err)
	}
	var link unix.Stat_t
	if err := unix.Lstat(dir, &link); err != nil {
		return "", fmt.Errorf("cache: %s: %w", dir, err)
	}
	if int(link.Uid) != os.Geteuid() {
		return "", fmt.Errorf("cache: %s is a symlink that belongs to uid %d, not to uid %d: "+
			"name the folder itself with --cache-dir", dir, link.Uid, os.Geteuid())
	}
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("cache: %s: symlink to nowhere: "+
			"make its target or name another folder with --cache-dir: %w", dir, err)
	}
	return path, nil
}

// OpenFolder opens the cache folder and what belongs in it, making what is missing.
func OpenFolder(path string, env Env) (_ *Folder, err error) {
	// What is private is checked below, so others may write to the directory that it stands in.
	name := filepath.Base(path)
	above, err := safedir.Open(filepath.Dir(path), os.Geteuid(), safedir.Create|safedir.Shared)
	if err != nil {
		return nil, OnDisk("make folder", err)
	}
	defer above.Close()
	made := false
	switch err := makeDir(above.Fd(), name); {
	case err == nil:
		made = true
	case err != unix.EEXIST:
		return nil, OnDisk("make folder "+path, err)
	}
	f := &Folder{env: env, Root: -1, Blobs: -1, Tmp: -1, Usage: -1}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if f.Root, _, err = openDir(above.Fd(), name, path, 0); err != nil {
		return nil, err
	}
	if err := private(f.Root, made); err != nil {
		return nil, OnDisk("chmod "+path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.Root, &st); err != nil {
		return nil, OnDisk("stat "+path, err)
	}
	f.Dev, f.Ino = uint64(st.Dev), st.Ino
	fresh := false
	if f.Blobs, fresh, err = openDir(f.Root, "blobs", path+"/blobs", 0o700); err != nil {
		return nil, err
	}
	if f.Tmp, _, err = openDir(f.Root, "tmp", path+"/tmp", 0o700); err != nil {
		return nil, err
	}
	records, _, err := openDir(f.Root, "records", path+"/records", 0o700)
	if err != nil {
		return nil, err
	}
	_ = unix.Close(records)
	if err := f.tag(); err != nil {
		return nil, OnDisk("write "+path+"/CACHEDIR.TAG", err)
	}
	return f, f.startUsage(path, fresh)
}

// openDir opens a directory that only the user may own and write, making it when it is missing. One
// that its owner cannot enter gets the mode back, if mode is not 0.
func openDir(at int, name, path string, mode uint32) (fd int, made bool, err error) {
	fd, err = Open(at, name, unix.O_RDONLY|unix.O_DIRECTORY, mode)
	if err == unix.ENOENT {
		if err = makeDir(at, name); err != nil && err != unix.EEXIST {
			return -1, false, OnDisk("make "+path, err)
		}
		made = err == nil
		fd, err = Open(at, name, unix.O_RDONLY|unix.O_DIRECTORY, mode)
	}
	if err == unix.ELOOP || err == unix.ENOTDIR {
		err = fmt.Errorf("%s is not a folder but a symlink or a file: remove it: %w", path, err)
		return -1, false, OnDisk("open", err)
	}
	if err != nil {
		return -1, false, OnDisk("open "+path, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = OwnDir(&st, path)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, false, OnDisk("check", err)
	}
	return fd, made, nil
}

// OwnDir refuses a directory in which others could plant files.
func OwnDir(st *unix.Stat_t, path string) error {
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to uid %d, not to uid %d: chown it", path, st.Uid, uid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s may be written by its group or by others (mode %04o): chmod 700 it",
			path, st.Mode&0o7777)
	}
	return nil
}

// private takes the folder from the eyes of others. A folder that holds other things keeps its
// mode: what the cache makes in it is private anyway.
func private(root int, made bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil || st.Mode&0o777 == 0o700 {
		return err
	}
	if !made {
		if unix.Faccessat(root, "CACHEDIR.TAG", unix.F_OK, 0) != nil {
			names, err := DirNames(root, 1)
			if err != nil || len(names) > 0 {
				return err
			}
		}
		if st.Mode&0o077 == 0 {
			return nil // stricter than needed, say 0500: not ours to widen
		}
	}
	return unix.Fchmod(root, 0o700)
}

// tag writes CACHEDIR.TAG, by which backup programs know that this is a cache.
func (f *Folder) tag() error {
	fd, err := Open(f.Root, "CACHEDIR.TAG", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err == unix.EEXIST {
		var st unix.Stat_t
		err = unix.Fstatat(f.Root, "CACHEDIR.TAG", &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0 {
			return nil
		}
		// It is empty: the process that made it was killed, or is about to write it.
		fd, err = Open(f.Root, "CACHEDIR.TAG", unix.O_WRONLY, 0o600)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = WriteFull(fd, []byte(Tag), 0)
	return err
}

// startUsage opens the usage file, makes evict.lock, finds out whether flock works here, and starts
// the number of a fresh cache.
func (f *Folder) startUsage(path string, fresh bool) (err error) {
	if f.Usage, err = OpenState(f.Root, "usage"); err != nil {
		return OnDisk("open "+path+"/usage", err)
	}
	// A full disk may have no room for it when it is needed.
	lock, err := OpenState(f.Root, "evict.lock")
	if err != nil {
		return OnDisk("open "+path+"/evict.lock", err)
	}
	_ = unix.Close(lock)
	locked, err := TryLock(f.Usage)
	if err != nil {
		err = fmt.Errorf("this file system has no flock, a local disk has: %w", err)
		return OnDisk("flock "+path+"/usage", err)
	}
	if !locked {
		return nil // in use: it is not fresh
	}
	defer unix.Flock(f.Usage, unix.LOCK_UN)
	if st := (unix.Stat_t{}); fresh && unix.Fstat(f.Usage, &st) == nil && st.Size == 0 {
		return OnDisk("write "+path+"/usage", WriteUsage(f.Usage, Overhead, BootID()))
	}
	return nil
}
