package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

const (
	typeName    = "pfmount"   // the mount's type is fuse.pfmount
	device      = "/dev/fuse" // the kernel's side of FUSE
	requestSize = 128 << 10   // bytes of the largest READ; 1 MiB was no faster and multiplies the memory bound
	noPoll      = ".go-fuse-epoll-hack"
)

// What can be wrong with a mount beside the image. Every error of Mount is an ErrMount, whatever else it is.
var (
	ErrMount      = errors.New("mount")
	ErrDevice     = errors.New("no access to " + device)
	ErrHelper     = errors.New("no fusermount3 and no fusermount")
	ErrAllowOther = errors.New("allow_other is not permitted")
	ErrMountPoint = errors.New("bad mount point")
	ErrMoved      = errors.New("moved meanwhile") // the mount point is not at its path any more
	ErrBusy       = errors.New("busy")            // the mount point is in use; of Unmount: files of the mount are
)

// Mount shows ix at the directory at and returns once the mount answers. It is always read-only, without set-id bits and
// devices, and the kernel checks permissions. Root mounts by itself, anybody else with the help of fusermount3. A mount that
// does not stand at the directory's path is taken back: ErrMoved. The directory stays open.
func Mount(at *Folder, ix *pfimg.Index, blobs Blobs, o Options) (*Server, error) {
	fs := New(ix, blobs, o)
	s, err := fs.mount(at)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMount, err)
	}
	return s, nil
}

// mount attaches f to the directory and begins to serve.
func (f *FS) mount(at *Folder) (*Server, error) {
	if err := at.unmoved(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMountPoint, err)
	}
	return f.attachTo(at, newAttacher(f.opts))
}

// attachTo is mount for a directory that has just been looked at.
func (f *FS) attachTo(at *Folder, a attacher) (*Server, error) {
	before, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	fd, err := a.attach(at)
	if err != nil {
		return nil, err
	}
	s := newServer(f, a)
	root, err := s.land(at)
	if err != nil {
		unix.Close(fd) // before strays are looked for: now they are dead
		return nil, errors.Join(err, s.takeBack(at), f.removeStrays(a, before))
	}
	defer root.Close()
	if err = s.start(fd, root); err == nil {
		err = at.atPath() // a rename that was under way as it was mounted is over by now
	}
	if err != nil {
		return nil, errors.Join(err, s.takeBack(at))
	}
	return s, nil
}

// attacher is a way to mount and unmount.
type attacher interface {
	// attach mounts on the directory and returns the kernel's end of the connection.
	attach(at *Folder) (fd int, err error)
	// detach unmounts what is seen at the place; lazy: also when it is in use.
	detach(at *spot, lazy bool) error
}

// newAttacher is the way that is open to this user.
func newAttacher(o Options) attacher {
	if os.Geteuid() == 0 {
		return direct{opts: o}
	}
	return helper{opts: o}
}

// fuseOptions returns what go-fuse needs to know. It does not mount: it is given the open connection.
func (f *FS) fuseOptions() *fuse.MountOptions {
	log := f.opts.Log
	return &fuse.MountOptions{
		Name:                typeName,
		MaxWrite:            requestSize,
		MaxBackground:       f.opts.MaxBackground,
		CongestionThreshold: max(f.opts.MaxBackground/4, 1),
		DisableXAttrs:       true, // to answer them at all costs a round trip a file
		DisableSplice:       true, // measured: no gain

		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true, // nothing changes, so nothing is to be dropped

		// A file handle outlives the kernel's memory of the file, since rows are stable (NFS, overlayfs indexes).
		ExtraCapabilities: fuse.CAP_EXPORT_SUPPORT,
		Logger:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// A bug ends the process with its stack, as in any other goroutine, rather than serve on in a state unknown.
		PanicHandler: func(v any) fuse.Status { panic(v) },
	}
}

// start serves the connection fd, which it takes over, and waits until the mount answers, whose root is given.
func (s *Server) start(fd int, root *os.File) (err error) {
	// The connection is looked at from beside go-fuse, which keeps the descriptor to itself.
	watch, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("%s: %w", device, err)
	}
	s.watch = os.NewFile(uintptr(watch), device)
	s.fs.gate.dead = s.dead
	s.raw, err = fuse.NewServer(s.fs, "/dev/fd/"+strconv.Itoa(fd), s.fs.fuseOptions())
	if err != nil {
		s.watch.Close()
		return fmt.Errorf("the kernel and the file system do not agree: %w", err)
	}
	go s.serve()
	if err := disablePoll(root); err != nil {
		return fmt.Errorf("the mount does not answer: %w", err)
	}
	close(s.answers)
	if err := raiseReadAhead(readAheadFile(s.mount.Dev)); err != nil { // users may not, and read as well without
		s.fs.opts.Log.Debug("read-ahead stays as it is", "image", s.fs.opts.Image, "err", err)
	}
	return nil
}

// disablePoll makes the kernel ask for poll(2) once: go-fuse has a name for it, and answers ENOSYS for good. A Go program
// that is its own reader could otherwise run out of threads, since its runtime polls every file that it opens.
func disablePoll(root *os.File) error {
	fd, err := unix.Openat(int(root.Fd()), noPoll, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if errors.Is(err, syscall.EINTR) { // the question was sent all the same
		return nil
	}
	return err
}
