package fusefs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// Unmount unmounts the mount m and no other, wherever it is now. It is no error when it is gone. ErrBusy while it is in use,
// unless lazy is set, and while another mount covers it. It is for mounts that another process serves, or none any more.
func Unmount(m *mounts.Mount, lazy bool) error {
	return unmount(newAttacher(Options{}), m, lazy)
}

func unmount(a attacher, m *mounts.Mount, lazy bool) error {
	at, err := placeOf(m)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	return a.detach(at, lazy)
}

// errGone is the error of placeOf for a mount that is not there any more.
var errGone = errors.New("not mounted")

// placeOf holds the place where the mount m is seen; ErrBusy when another mount is seen there. umount2(2) takes a path and
// no mount, so two processes that unmount at the same instant can still hit what lies below.
func placeOf(m *mounts.Mount) (*spot, error) {
	table, err := mounts.Read()
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
	at, err := openSpot(now.Point)
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
func coveredError(m, over *mounts.Mount) error {
	if over == nil {
		return fmt.Errorf("%w: another mount lies over %s", ErrBusy, m.Point)
	}
	return fmt.Errorf("%w: another mount, %q (%s) on %q, lies over %s",
		ErrBusy, over.Source, over.Type, over.Point, m.Point)
}

// land finds the mount that was made on the directory, and opens its root. It goes by the descriptor, not by the path:
// from the directory up and back to its name, where the mount is.
func (s *Server) land(at *Folder) (*os.File, error) {
	place, err := at.spot()
	if err != nil {
		return nil, err
	}
	defer place.Close()
	root, err := place.root()
	if err != nil {
		return nil, err
	}
	if err := s.recognise(at, root); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// recognise notes the mount of which root is the root; ErrMoved unless that is the one that was just made, on the
// directory and at its path.
func (s *Server) recognise(at *Folder, root *os.File) error {
	id, err := mountID(int(root.Fd()))
	if err != nil {
		return err
	}
	table, err := mounts.Read()
	if err != nil {
		return err
	}
	m := table.ByID(id)
	if m == nil || id == at.mount || !m.Ours() || m.Source != s.fs.opts.FSName {
		return fmt.Errorf("%w: %w: nothing is mounted on %s", ErrMountPoint, ErrMoved, at.path)
	}
	s.mount = *m
	if m.Point != at.path || m.Parent != at.mount {
		return fmt.Errorf("%w: %w: the mount came to lie on %q and not right on %s",
			ErrMountPoint, ErrMoved, m.Point, at.path)
	}
	return nil
}

// takeBack unmounts what a Mount that fails has mounted on the directory, by way of the descriptor as well.
func (s *Server) takeBack(at *Folder) error {
	if s.mount.ID == 0 {
		return nil
	}
	place, err := at.spot()
	if err != nil {
		return err
	}
	defer place.Close()
	if id, err := place.mountID(); err != nil || id != s.mount.ID {
		return errors.Join(err, coveredError(&s.mount, nil))
	}
	return s.attacher.detach(place, true)
}

// removeStrays unmounts what the helper has mounted elsewhere, since the path led there: what was not in the table before,
// has this mount's name and owner, and is dead as its connection is closed.
func (f *FS) removeStrays(a attacher, before mounts.Table) error {
	table, err := mounts.Read()
	if err != nil {
		return err
	}
	for i := range table {
		m := &table[i]
		if before.Find(m) != nil || !m.Ours() || m.Source != f.opts.FSName || m.UID != os.Geteuid() || !dead(m) {
			continue
		}
		err = errors.Join(err, unmount(a, m, true))
	}
	return err
}

// dead reports whether the connection of the mount m is closed.
func dead(m *mounts.Mount) bool {
	at, err := placeOf(m)
	if err != nil {
		return false
	}
	defer at.Close()
	root, err := at.root()
	if err != nil {
		return false
	}
	defer root.Close()
	var st unix.Statfs_t
	err = unix.Fstatfs(int(root.Fd()), &st)
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}
