package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
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
	ErrBusy       = errors.New("busy") // the mount point is in use; of Unmount: files of the mount are
)

// Mount shows ix at the directory dir and returns once the mount answers. It is always read-only, without set-id bits and
// devices, and the kernel checks permissions. Root mounts by itself, anybody else with the help of fusermount3.
func Mount(dir string, ix *pfimg.Index, blobs Blobs, o Options) (*Server, error) {
	fs := New(ix, blobs, o)
	s, err := fs.mount(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMount, err)
	}
	return s, nil
}

// mount attaches f to dir and begins to serve.
func (f *FS) mount(dir string) (*Server, error) {
	point, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	a := newAttacher(f.opts)
	fd, err := a.attach(point)
	if err != nil {
		return nil, err
	}
	s := newServer(f, point, a)
	if err := s.start(fd); err != nil {
		if derr := a.detach(point, true); derr != nil {
			err = errors.Join(err, derr)
		}
		return nil, err
	}
	return s, nil
}

// attacher is a way to mount and unmount.
type attacher interface {
	// attach mounts on point and returns the kernel's end of the connection.
	attach(point string) (fd int, err error)
	// detach unmounts point; lazy: also when it is in use.
	detach(point string, lazy bool) error
}

// newAttacher is the way that is open to this user.
func newAttacher(o Options) attacher {
	if os.Geteuid() == 0 {
		return direct{opts: o}
	}
	return helper{opts: o}
}

// Unmount unmounts whatever is mounted on point, an absolute path without symbolic links; ErrBusy while it is in use, unless
// lazy is set. It is for mounts that another process serves, or none any more.
func Unmount(point string, lazy bool) error { return newAttacher(Options{}).detach(point, lazy) }

// resolve returns the absolute path of the directory dir, without symbolic links, as the mount table will show it.
func resolve(dir string) (string, error) {
	point, err := filepath.Abs(dir)
	if err == nil {
		point, err = filepath.EvalSymlinks(point)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMountPoint, err)
	}
	fi, err := os.Stat(point)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMountPoint, err)
	}
	if !fi.IsDir() {
		return "", fmt.Errorf("%w: %s is not a directory", ErrMountPoint, point)
	}
	return point, nil
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

// start serves the connection fd, which it takes over, and waits until the mount answers.
func (s *Server) start(fd int) (err error) {
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
	if err := disablePoll(s.point); err != nil {
		return fmt.Errorf("the mount does not answer: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.point, &st); err != nil {
		return fmt.Errorf("the mount does not answer: %w", err)
	}
	s.dev = fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	close(s.answers)
	if err := raiseReadAhead(readAheadFile(s.dev)); err != nil { // users may not, and read as well without
		s.fs.opts.Log.Debug("read-ahead stays as it is", "image", s.fs.opts.Image, "err", err)
	}
	return nil
}

// disablePoll makes the kernel ask for poll(2) once: go-fuse has a name for it, and answers ENOSYS for good. A Go program
// that is its own reader could otherwise run out of threads, since its runtime polls every file that it opens.
func disablePoll(point string) error {
	fd, err := unix.Open(filepath.Join(point, noPoll), unix.O_RDONLY|unix.O_CLOEXEC, 0)
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
