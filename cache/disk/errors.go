package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

var (
	// ErrDamaged says that a blob's bytes on disk are not what its key promises, and that fetching
	// it once more did not help.
	ErrDamaged = errors.New("damaged in the cache")
	// ErrSize says that a blob has another length than the caller expects, or that a fill wrote
	// another.
	ErrSize = errors.New("length differs from the expected size")
	// ErrElsewhere says that another process, waited for longer than its share, failed to fill the
	// blob.
	ErrElsewhere = errors.New("another process failed to fetch it")
	// ErrUnwanted is for a fill to fail with when no reader waits for the blob any more, or none
	// has yet: the next reader, here or in another process, begins anew.
	ErrUnwanted = errors.New("given up, since nobody waited for it")
	// ErrRoom says that the cache has no room for a blob, and may make none.
	ErrRoom = errors.New("no room in the cache")
)

// roomError is an ErrRoom with its reason. To a reader it is a full disk.
type roomError struct{ why string }

func (e *roomError) Error() string   { return ErrRoom.Error() + ": " + e.why }
func (e *roomError) Unwrap() []error { return []error{ErrRoom, unix.ENOSPC} }

// noRoomf makes a roomError the disk's.
func noRoomf(format string, args ...any) error {
	return layout.OnDisk("make room", &roomError{fmt.Sprintf(format, args...)})
}

// SizeError is an ErrSize of a blob.
func SizeError(key [32]byte, want, got int64) error {
	return fmt.Errorf("cache: blob %x: %w: want %d bytes, got %d", key, ErrSize, want, got)
}

func badFile(key digest, what string) error {
	return fmt.Errorf("cache: blob %x: %w: %s", key, ErrDamaged, what)
}
