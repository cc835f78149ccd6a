// Package safedir holds a directory open by its descriptor, so that no other user can divert what
// is done in it.
//
// Open walks a path one component at a time and checks the owner and the mode of each before it
// goes on. What is done in a Dir afterwards is relative to its descriptor and follows no symlink.
// openat2(2) would not do: it can refuse symlinks, but it cannot tell root's from a stranger's, and
// /var/run is a symlink on every system.
//
// The package does not know what the files are for.
package safedir

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrUnsafe says that another user could change where a path leads or what is written there, or
// that what is there is not a regular file.
var ErrUnsafe = errors.New("not safe to use")

// Flag says how a directory is opened.
type Flag int

const (
	Create Flag = 1 << iota // make the directories that are missing, with mode 0700
	Shared                  // pass through directories without the sticky bit where all may write
)

// Dir is a directory held open.
type Dir struct {
	fd   int
	uid  int
	path string
}

// Open opens the directory path on behalf of the user uid.
//
// A process of root passes through directories that root or uid owns, and through none that is
// writable for all unless it has the sticky bit. A directory that a group may write to is its
// owner's decision, as /var/log is on Ubuntu. It follows symlinks that root or uid owns. Any other
// process passes where the kernel lets it, and also follows a symlink that the owner of its
// directory has made. An error that a check is the reason of is ErrUnsafe.
func Open(path string, uid int, flags Flag) (*Dir, error) {
	d, _, err := open(path, uid, flags, false)
	return d, err
}

// OpenParent opens the directory of the file path, as Open does, and returns the file's name in it.
// A symlink in the file's place is followed by the same rules, so that the name is not that of a
// symlink unless it was made since.
func OpenParent(path string, uid int, flags Flag) (*Dir, string, error) {
	return open(path, uid, flags, true)
}

// Close closes the descriptor.
func (d *Dir) Close() error { return unix.Close(d.fd) }

// Fd returns the descriptor, which is fit for system calls that take a directory (O_PATH).
func (d *Dir) Fd() int { return d.fd }

// Path returns a path of a name in d that leads through the descriptor, for system calls that take
// nothing else. It is shorter than the 107 bytes that a socket's path may have (unix(7)) as long as
// the name is.
func (d *Dir) Path(name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name) }

// Private returns an error unless the directory belongs to the user alone and no one else may write
// to it.
func (d *Dir) Private() error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return d.error("stat", "", err)
	}
	switch {
	case int(st.Uid) != d.uid:
		return refused(d.path, "it belongs to user %d, not to user %d", st.Uid, d.uid)
	case st.Mode&0o022 != 0:
		return refused(d.path, "others may write to it (mode %04o): chmod 700 it", st.Mode&0o7777)
	}
	return nil
}

// error wraps the error of a system call, unless it has its path already.
func (d *Dir) error(op, name string, err error) error {
	var own *fs.PathError
	if err == nil || errors.As(err, &own) {
		return err
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

// refused makes an ErrUnsafe. It is a PathError, too: it is the local disk's.
func refused(path, format string, a ...any) error {
	err := fmt.Errorf(format+": %w", append(a, ErrUnsafe)...)
	return &fs.PathError{Op: "use", Path: path, Err: err}
}
