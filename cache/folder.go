package cache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safedir"
)

const cacheTag = "Signature: 8a477f597d28d172789f06886806bc55\n" +
	"# This file marks a cache folder of pfmount, which may be deleted at any time (https://bford.info/cachedir/).\n"

// disk is the cache folder by its path. When the folder is deleted or replaced, a new incarnation of it is opened.
type disk struct {
	path string
	uid  int // whose files are ours

	mu  sync.Mutex // guards cur and the refs of every folder
	cur *folder
}

// folder is one incarnation of the cache folder, held open: what happens to its path does not move it.
type folder struct {
	root, blobs, tmp int
	usage            int // guarded by quota.turn
	dev, ino         uint64
	plain            atomic.Bool // openat2 is not to be had (Linux before 5.6, old container profiles)
	refs             int         // guarded by disk.mu
}

// use returns the folder, opening or making it as needed. The caller gives it back with done.
func (d *disk) use() (*folder, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cur == nil {
		f, err := openFolder(d.path)
		if err != nil {
			return nil, err
		}
		d.cur = f
	}
	d.cur.refs++
	return d.cur, nil
}

func (d *disk) done(f *folder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f.refs--
	if f.refs == 0 && f != d.cur {
		f.close()
	}
}

// renew makes the next use open the path anew.
func (d *disk) renew(old *folder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cur == old {
		d.cur = nil
		if old.refs == 0 {
			old.close()
		}
	}
}

// moved says whether the path no longer leads to f, f lost its folders, or others may write to them now: New would
// refuse that.
func (d *disk) moved(f *folder) bool {
	var root unix.Stat_t
	if unix.Lstat(d.path, &root) != nil || uint64(root.Dev) != f.dev || root.Ino != f.ino || ownDir(&root, d.path) != nil {
		return true
	}
	for name, fd := range map[string]int{"blobs": f.blobs, "tmp": f.tmp} {
		var st unix.Stat_t
		if same, err := current(fd, f.root, name); !same || err != nil {
			return true
		}
		if unix.Fstat(fd, &st) != nil || ownDir(&st, name) != nil {
			return true
		}
	}
	return false
}

func (d *disk) close() {
	d.mu.Lock()
	f := d.cur
	d.mu.Unlock()
	if f != nil {
		d.renew(f)
	}
}

func (f *folder) close() {
	for _, fd := range []int{f.root, f.blobs, f.tmp, f.usage} {
		if fd >= 0 {
			_ = unix.Close(fd) // directories and a file written with pwrite: nothing is left to report
		}
	}
}

// resolve returns the path to open for dir. A symlink in the user's own name is followed, here and never again.
func resolve(dir string) (string, error) {
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
		return "", fmt.Errorf("cache: %s is a symlink that belongs to uid %d, not to uid %d: name the folder itself with --cache-dir", dir, link.Uid, os.Geteuid())
	}
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("cache: %s: symlink to nowhere: make its target or name another folder with --cache-dir: %w", dir, err)
	}
	return path, nil
}

// openFolder opens the cache folder and what belongs in it, making what is missing.
func openFolder(path string) (_ *folder, err error) {
	// What is private is checked below, so others may write to the directory that it stands in.
	name := filepath.Base(path)
	above, err := safedir.Open(filepath.Dir(path), os.Geteuid(), safedir.Create|safedir.Shared)
	if err != nil {
		return nil, diskError("make folder", err)
	}
	defer above.Close()
	made := false
	switch err := makeDir(above.Fd(), name); {
	case err == nil:
		made = true
	case err != unix.EEXIST:
		return nil, diskError("make folder "+path, err)
	}
	f := &folder{root: -1, blobs: -1, tmp: -1, usage: -1}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.root, _, err = openDir(above.Fd(), name, path, 0); err != nil {
		return nil, err
	}
	if err := private(f.root, made); err != nil {
		return nil, diskError("chmod "+path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.root, &st); err != nil {
		return nil, diskError("stat "+path, err)
	}
	f.dev, f.ino = uint64(st.Dev), st.Ino
	fresh := false
	if f.blobs, fresh, err = openDir(f.root, "blobs", path+"/blobs", 0o700); err != nil {
		return nil, err
	}
	if f.tmp, _, err = openDir(f.root, "tmp", path+"/tmp", 0o700); err != nil {
		return nil, err
	}
	records, _, err := openDir(f.root, "records", path+"/records", 0o700)
	if err != nil {
		return nil, err
	}
	_ = unix.Close(records)
	if err := f.tag(); err != nil {
		return nil, diskError("write "+path+"/CACHEDIR.TAG", err)
	}
	return f, f.startUsage(path, fresh)
}

// openDir opens a directory that must be the user's own and nobody else's to write, making it when it is missing.
// One that its owner cannot enter gets the mode back, if mode is not 0.
func openDir(at int, name, path string, mode uint32) (fd int, made bool, err error) {
	fd, err = rawOpen(at, name, unix.O_RDONLY|unix.O_DIRECTORY, mode)
	if err == unix.ENOENT {
		if err = makeDir(at, name); err != nil && err != unix.EEXIST {
			return -1, false, diskError("make "+path, err)
		}
		made = err == nil
		fd, err = rawOpen(at, name, unix.O_RDONLY|unix.O_DIRECTORY, mode)
	}
	if err == unix.ELOOP || err == unix.ENOTDIR {
		return -1, false, diskError("open", fmt.Errorf("%s is not a folder but a symlink or a file: remove it: %w", path, err))
	}
	if err != nil {
		return -1, false, diskError("open "+path, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = ownDir(&st, path)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, false, diskError("check", err)
	}
	return fd, made, nil
}

// ownDir refuses a directory in which others could plant files.
func ownDir(st *unix.Stat_t, path string) error {
	if uid := os.Geteuid(); int(st.Uid) != uid {
		return fmt.Errorf("%s belongs to uid %d, not to uid %d: chown it", path, st.Uid, uid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("%s may be written by its group or by others (mode %04o): chmod 700 it", path, st.Mode&0o7777)
	}
	return nil
}

// private takes the folder from the eyes of others. A folder that holds other things keeps its mode: what the cache
// makes in it is private anyway.
func private(root int, made bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil || st.Mode&0o777 == 0o700 {
		return err
	}
	if !made {
		if unix.Faccessat(root, "CACHEDIR.TAG", unix.F_OK, 0) != nil {
			names, err := dirNames(root, 1)
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

// dirNames reads up to n names of an open directory, from its start; n -1 means all.
func dirNames(dir, n int) ([]string, error) {
	fd, err := rawOpen(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
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

// tag writes CACHEDIR.TAG, by which backup programs know that this is a cache.
func (f *folder) tag() error {
	fd, err := rawOpen(f.root, "CACHEDIR.TAG", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err == unix.EEXIST {
		var st unix.Stat_t
		err = unix.Fstatat(f.root, "CACHEDIR.TAG", &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0 {
			return nil
		}
		// It is empty: the process that made it was killed, or is about to write it.
		fd, err = rawOpen(f.root, "CACHEDIR.TAG", unix.O_WRONLY, 0o600)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = pwriteFull(fd, []byte(cacheTag), 0)
	return err
}

// startUsage opens the usage file, makes evict.lock, finds out whether flock works here, and starts the number of a fresh cache.
func (f *folder) startUsage(path string, fresh bool) (err error) {
	if f.usage, err = openState(f.root, "usage"); err != nil {
		return diskError("open "+path+"/usage", err)
	}
	lock, err := openState(f.root, "evict.lock") // a full disk may have no room for it when it is needed
	if err != nil {
		return diskError("open "+path+"/evict.lock", err)
	}
	_ = unix.Close(lock)
	locked, err := tryLock(f.usage)
	if err != nil {
		return diskError("flock "+path+"/usage", fmt.Errorf("this file system has no flock, a local disk has: %w", err))
	}
	if !locked {
		return nil // somebody at work: it is not fresh
	}
	defer unix.Flock(f.usage, unix.LOCK_UN)
	if st := (unix.Stat_t{}); fresh && unix.Fstat(f.usage, &st) == nil && st.Size == 0 {
		return diskError("write "+path+"/usage", writeUsage(f.usage, overhead, bootID()))
	}
	return nil
}
