package daemon

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safedir"
)

// A log of logLimit bytes is renamed to NAME.old, in place of the one before, and a new one is
// begun.
const (
	logLimit = 10 << 20
	oldLog   = ".old"
)

// rotatingLog is the log of a mount. Its directory is held by a descriptor, and what is done in it
// follows no symlink. Other processes may write to the same log and rotate it: the guard does, and
// another mount may.
type rotatingLog struct {
	dir   *safedir.Dir
	name  string
	limit int64

	mu   sync.Mutex // guards file
	file *os.File
}

// openLog opens the log of a mount and makes what is missing.
func openLog(path string) (*rotatingLog, error) {
	dir, name, err := safedir.OpenParent(path, os.Geteuid(), safedir.Create)
	if err != nil {
		return nil, fmt.Errorf("log file: %w; give another with --log-file", err)
	}
	l := &rotatingLog{dir: dir, name: name, limit: logLimit}
	if l.file, err = l.open(); err != nil {
		_ = dir.Close() // nothing was written
		return nil, fmt.Errorf("log file: %w; give another with --log-file", err)
	}
	return l, nil
}

func (l *rotatingLog) open() (*os.File, error) {
	return l.dir.OpenFile(l.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// Write appends p, which is whole lines.
func (l *rotatingLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.makeRoom(int64(len(p)))
	return l.file.Write(p)
}

func (l *rotatingLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.file.Close(), l.dir.Close())
}

// makeRoom sees to it that the log stays below its limit with n bytes more. What fails is tried
// again at the next line, until the file has twice its size, which is what two files would take:
// then it is emptied.
func (l *rotatingLog) makeRoom(n int64) {
	for range 3 {
		size, named := l.look()
		if !named {
			if f, err := l.open(); err == nil { // removed, or rotated by another process
				_ = l.file.Close() // lines are written at once: nothing is left to report
				l.file = f
				continue
			}
		}
		if size == 0 || size+n <= l.limit {
			return
		}
		if named && l.rotate() == nil {
			continue
		}
		if size+n > 2*l.limit {
			_ = l.file.Truncate(0)
		}
		return
	}
}

// look returns the size of the file that is open, and whether the log's name still leads to it.
func (l *rotatingLog) look() (size int64, named bool) {
	var held unix.Stat_t
	if err := unix.Fstat(int(l.file.Fd()), &held); err != nil {
		return 0, true
	}
	now, err := l.dir.Stat(l.name)
	return held.Size, err == nil && now.Dev == held.Dev && now.Ino == held.Ino
}

// rotate gives the file its other name. The lock keeps two processes from rotating the same file,
// the second of which would put a log just begun in place of a full one.
func (l *rotatingLog) rotate() error {
	fd := int(l.file.Fd())
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		defer unix.Flock(fd, unix.LOCK_UN)
	case unix.EWOULDBLOCK:
		return err
	} // without flock on this file system, two processes are a risk to the older lines
	if _, named := l.look(); !named {
		return nil
	}
	return l.dir.Rename(l.name, l.name+oldLog)
}
