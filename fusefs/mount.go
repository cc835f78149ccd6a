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
	// requestSize is the bytes of the largest READ; 1 MiB was no faster and multiplies the memory
	// bound.
	requestSize = 128 << 10
	noPoll      = ".go-fuse-epoll-hack"
)

// ErrMount is every error of Mount, whatever else it is.
var ErrMount = errors.New("mount")

// Mount shows ix at the directory at and returns once the mount answers. See mounts.Attach for how
// it is made, and what is an error. The directory stays open.
func Mount(at *mounts.Dir, ix *pfimg.Index, blobs Blobs, o Options) (*Server, error) {
	s, err := attach(at, New(ix, blobs, o))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMount, err)
	}
	return s, nil
}

// attach mounts f on the directory and begins to serve.
func attach(at *mounts.Dir, f *FS) (*Server, error) {
	o := f.opts.Mount
	o.MaxRead = requestSize
	a, err := mounts.Attach(at, o)
	if err != nil {
		return nil, err
	}
	defer a.Root.Close()
	s := newServer(f, a.Mount)
	if err = s.start(a.FD, a.Root); err == nil {
		err = a.InPlace()
	}
	if err != nil {
		return nil, errors.Join(err, a.Undo())
	}
	return s, nil
}

// fuseOptions returns what go-fuse needs to know. It does not mount: it is given the open
// connection.
func fuseOptions(o Options) *fuse.MountOptions {
	return &fuse.MountOptions{
		Name:                mounts.Subtype,
		MaxWrite:            requestSize,
		MaxBackground:       o.MaxBackground,
		CongestionThreshold: max(o.MaxBackground/4, 1),
		DisableXAttrs:       true, // to answer them at all costs a round trip a file
		DisableSplice:       true, // measured: no gain

		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true, // nothing changes, so nothing is to be dropped

		// A file handle outlives the kernel's memory of the file, since rows are stable (NFS,
		// overlayfs indexes).
		ExtraCapabilities: fuse.CAP_EXPORT_SUPPORT,
		Logger:            slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		// A bug ends the process with its stack, as in any other goroutine, rather than serve on in
		// a state unknown.
		PanicHandler: func(v any) fuse.Status { panic(v) },
	}
}

// start serves the connection fd, which it takes over, and waits until the mount answers, whose
// root is given.
func (s *Server) start(fd int, root *os.File) (err error) {
	// The connection is looked at from beside go-fuse, which keeps the descriptor to itself.
	watch, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("the connection of the mount: %w", err)
	}
	s.watch = os.NewFile(uintptr(watch), "fuse")
	s.fs.drain.dead = s.dead
	s.raw, err = fuse.NewServer(s.fs, "/dev/fd/"+strconv.Itoa(fd), fuseOptions(s.fs.opts))
	if err != nil {
		s.watch.Close()
		return fmt.Errorf("the kernel and the file system do not agree: %w", err)
	}
	go s.serve()
	if err := disablePoll(root); err != nil {
		return fmt.Errorf("the mount does not answer: %w", err)
	}
	close(s.answers)
	if err := raiseReadAhead(readAheadFile(s.mount.Dev)); err != nil {
		// Users may not, and read as well without.
		s.fs.opts.Log.Debug("read-ahead stays as it is", "image", s.fs.opts.Image, "err", err)
	}
	return nil
}

// disablePoll makes the kernel ask for poll(2) once: go-fuse has a name for it, and answers ENOSYS
// for good. A Go program that is its own reader could otherwise run out of threads, since its
// runtime polls every file that it opens.
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
