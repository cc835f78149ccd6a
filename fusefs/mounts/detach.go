package mounts

import (
	"errors"
	"fmt"
)

// Detach unmounts the mount m and no other, wherever it is now. It is no error when it is gone.
// ErrBusy while it is in use, unless lazy is set, and while another mount covers it.
func Detach(m *Mount, lazy bool) error { return detach(newAttacher(), m, lazy) }

func detach(way attacher, m *Mount, lazy bool) error {
	at, err := locate(m)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	return way.detach(at, lazy)
}

// errGone is the error of locate for a mount that is not there any more.
var errGone = errors.New("not mounted")

// locate holds the place where the mount m is seen; ErrBusy when another mount is seen there.
// umount2(2) takes a path and no mount, so two processes that unmount at the same instant can still
// hit what lies below.
func locate(m *Mount) (*place, error) {
	table, err := Read()
	if err != nil {
		return nil, err
	}
	now := table.Find(m)
	if now == nil {
		return nil, fmt.Errorf("%s: %w", m.Point, errGone)
	}
	if over := table.Holding(now.Point); !now.Same(over) {
		return nil, coveredError(now, over)
	}
	at, err := openPlace(now.Point)
	if err != nil {
		return nil, err
	}
	id, err := at.mountID() // the kernel's own word
	if err == nil && id != now.ID {
		err = coveredError(now, table.ByID(id))
	}
	if err != nil {
		at.Close()
		return nil, err
	}
	return at, nil
}

// coveredError says that the mount over, if it is known, is seen in the place of m.
func coveredError(m, over *Mount) error {
	if over == nil {
		return fmt.Errorf("%w: another mount lies over %s", ErrBusy, m.Point)
	}
	return fmt.Errorf("%w: another mount, %q (%s) on %q, lies over %s",
		ErrBusy, over.Source, over.Type, over.Point, m.Point)
}
