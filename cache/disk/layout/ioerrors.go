package layout

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// diskError is an error of the cache's own file system.
type diskError struct {
	op  string
	err error
}

func (e *diskError) Error() string { return "cache disk: " + e.op + ": " + e.err.Error() }
func (e *diskError) Unwrap() error { return e.err }

// IsError says whether err is an error of the cache's own file system, not of a caller or a fill.
func IsError(err error) bool {
	var e *diskError
	return errors.As(err, &e)
}

// OnDisk makes err the disk's, unless it is nil or only says that the caller's time is over.
func OnDisk(op string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		IsError(err) {
		return err
	}
	return &diskError{op, err}
}

// Full says that room on the disk may help.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Vanished says that a directory was deleted or replaced under its descriptor.
func Vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) ||
		errors.Is(err, unix.ENOTDIR)
}

// Exhausted says that there was no descriptor left.
func Exhausted(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

// NotDir says that a symlink or a file sits in a directory's place.
func NotDir(err error) bool { return err == unix.ELOOP || err == unix.ENOTDIR }

// ErrOr returns err, or other when err is nil.
func ErrOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
