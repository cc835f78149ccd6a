package mounts

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Subtype names the mounts that pfmount makes; their type is fuse.pfmount.
const Subtype = "pfmount"

const device = "/dev/fuse" // the kernel's side of FUSE

// What can be wrong with a mount, or with a place for one.
var (
	ErrDevice     = errors.New("no access to " + device)
	ErrHelper     = errors.New("no fusermount3 and no fusermount")
	ErrAllowOther = errors.New("allow_other is not permitted")
	ErrMountPoint = errors.New("bad mount point")
	ErrMoved      = errors.New("moved meanwhile") // the mount point is not at its path any more
	ErrBusy       = errors.New("busy")            // the mount point or the mount is in use
)

// Options say how a mount shows up and what it permits.
type Options struct {
	Source     string // in the mount table; empty: Subtype
	AllowOther bool   // lets users other than the mounting one in
	NoExec     bool   // lets no program be executed
	MaxRead    int    // bytes of the largest READ; 0: 128 KiB
}

func (o Options) maxRead() int { return cmp.Or(o.MaxRead, 128<<10) }

// Attached is a mount that was just made. It answers nothing before FD is served.
type Attached struct {
	Mount Mount
	FD    int      // the kernel's end of the connection, which the caller takes over
	Root  *os.File // the root of the mount; the mount is busy until Root is closed

	at  *Dir
	way attacher
}

// Attach mounts a FUSE file system on the directory, read-only, without set-id bits and devices;
// the kernel checks permissions. Root mounts by itself, other users with the help of fusermount3.
// A mount that does not come to lie on the directory at its path is taken back: ErrMoved. The
// directory stays open.
func Attach(at *Dir, o Options) (*Attached, error) {
	if err := at.unmoved(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMountPoint, err)
	}
	if o.Source == "" {
		o.Source = Subtype
	}
	return attach(at, newAttacher(), o)
}

// attach is Attach for a directory that was just checked.
func attach(at *Dir, way attacher, o Options) (*Attached, error) {
	before, err := Read()
	if err != nil {
		return nil, err
	}
	a := &Attached{at: at, way: way}
	if a.FD, err = way.attach(at, o); err != nil {
		return nil, err
	}
	if err := a.land(o.Source); err != nil {
		unix.Close(a.FD) // before strays are looked for: now they are dead
		return nil, errors.Join(err, a.Undo(), removeStrays(way, o.Source, before))
	}
	return a, nil
}

// InPlace is ErrMoved unless the mount still lies at the path of its directory. A rename that was
// under way while the mount was made is over once the mount answers.
func (a *Attached) InPlace() error { return a.at.atPath() }

// Undo unmounts the mount by way of the directory's descriptor, wherever its path leads.
func (a *Attached) Undo() error {
	if a.Mount.ID == 0 {
		return nil
	}
	at, err := a.at.place()
	if err != nil {
		return err
	}
	defer at.Close()
	if id, err := at.mountID(); err != nil || id != a.Mount.ID {
		return errors.Join(err, coveredError(&a.Mount, nil))
	}
	return a.way.detach(at, true)
}

// land finds the mount that was made on the directory, and opens its root. It goes by the
// descriptor, not by the path: from the directory up and back to its name, where the mount is.
func (a *Attached) land(source string) error {
	at, err := a.at.place()
	if err != nil {
		return err
	}
	defer at.Close()
	root, err := at.root()
	if err != nil {
		return err
	}
	if err := a.recognise(root, source); err != nil {
		root.Close()
		return err
	}
	a.Root = root
	return nil
}

// recognise notes the mount of which root is the root; ErrMoved unless that is the one that was
// just made, on the directory and at its path.
func (a *Attached) recognise(root *os.File, source string) error {
	id, err := mountID(int(root.Fd()))
	if err != nil {
		return err
	}
	table, err := Read()
	if err != nil {
		return err
	}
	m := table.ByID(id)
	if m == nil || id == a.at.mount || !m.Ours() || m.Source != source {
		return fmt.Errorf("%w: %w: nothing is mounted on %s", ErrMountPoint, ErrMoved, a.at.path)
	}
	a.Mount = *m
	if m.Point != a.at.path || m.Parent != a.at.mount {
		return fmt.Errorf("%w: %w: the mount came to lie on %q and not right on %s",
			ErrMountPoint, ErrMoved, m.Point, a.at.path)
	}
	return nil
}

// removeStrays unmounts what the helper has mounted elsewhere, since the path led there: what was
// not in the table before, has this mount's source and owner, and is dead as its connection is
// closed.
func removeStrays(way attacher, source string, before Table) error {
	table, err := Read()
	if err != nil {
		return err
	}
	for i := range table {
		m := &table[i]
		ours := m.Ours() && m.Source == source && m.UID == os.Geteuid()
		if before.Find(m) == nil && ours && dead(m) {
			err = errors.Join(err, detach(way, m, true))
		}
	}
	return err
}

// dead reports whether the connection of the mount m is closed.
func dead(m *Mount) bool {
	at, err := locate(m)
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

// attacher is a way to mount and unmount.
type attacher interface {
	// attach mounts on the directory and returns the kernel's end of the connection.
	attach(at *Dir, o Options) (fd int, err error)
	// detach unmounts what is seen at the place; lazy: also when it is in use.
	detach(at *place, lazy bool) error
}

// newAttacher returns the way that is open to this user.
func newAttacher() attacher {
	if os.Geteuid() == 0 {
		return direct{}
	}
	return helper{}
}
