package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the name of a folder where a pull keeps what is not whole yet.
const tempPrefix = ".pfmount-pull-"

// tempDir is a folder inside a destination, so that a file gets its final name by a rename. It is
// locked while it is used: what a pull that was killed left behind is removed by the next one. What
// place named is on the disk for certain after publish only.
type tempDir struct {
	dir  *os.File
	next atomic.Int64
}

// newTempDir makes dest, when it is not there, and a temporary folder in it.
func newTempDir(dest string) (*tempDir, error) {
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(escapeGlob(dest), tempPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", dest, err)
	}
	for _, path := range old {
		if dir, err := lockDir(path); err == nil {
			_ = os.RemoveAll(path)
			_ = dir.Close()
		}
	}
	path, err := os.MkdirTemp(dest, tempPrefix)
	if err != nil {
		return nil, err
	}
	dir, err := lockDir(path)
	if err != nil {
		_ = os.RemoveAll(path)
		return nil, err
	}
	return &tempDir{dir: dir}, nil
}

// lockDir opens and locks a folder; it does not wait for the lock.
func lockDir(path string) (*os.File, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("lock %q: %w", path, err)
	}
	return dir, nil
}

// escapeGlob makes a path mean itself in a pattern.
func escapeGlob(path string) string {
	var out []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, path[i])
	}
	return string(out)
}

// create makes an empty file; its mode is that of any new file of the user's.
func (t *tempDir) create() (*os.File, error) {
	name := filepath.Join(t.dir.Name(), strconv.FormatInt(t.next.Add(1), 10))
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
}

// place gives a whole file its final name.
func (t *tempDir) place(temp, path string) error {
	err := os.Rename(temp, path)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.Rename(temp, path)
		}
	}
	return err
}

// write makes a small file, at once or not at all. It is synced before it gets its name, since
// nothing proves such a file when it is found there later.
func (t *tempDir) write(path string, content []byte) error {
	return t.finish(path, content, (*os.File).Sync)
}

// publish makes the file that gives everything written before it its meaning: an index, a manifest.
// All of that, and the names that lead to it, are on the disk before the file gets its name, and
// the name is when publish returns. So a power cut leaves the image whole or not there. One
// syncfs(2) is cheaper than an fsync for each of thousands of files.
func (t *tempDir) publish(path string, content []byte) error {
	if err := t.finish(path, content, func(*os.File) error { return t.sync() }); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

// sync brings what was written to the disk.
func (t *tempDir) sync() error {
	if err := unix.Syncfs(int(t.dir.Fd())); err != nil {
		return fmt.Errorf("sync %q: %w", filepath.Dir(t.dir.Name()), err)
	}
	return nil
}

// finish writes a file, settles it, and gives it its name.
func (t *tempDir) finish(path string, content []byte, settle func(*os.File) error) error {
	f, err := t.create()
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = settle(f)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = t.place(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func (t *tempDir) remove() {
	_ = os.RemoveAll(t.dir.Name())
	_ = t.dir.Close()
}
