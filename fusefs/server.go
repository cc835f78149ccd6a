package fusefs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// Server is a mount that is being served. Its methods may be called at any time and from anywhere.
type Server struct {
	fs       *FS
	mount    mounts.Mount
	raw      *fuse.Server
	watch    *os.File      // a second descriptor of the connection, to see whether it is alive
	answers  chan struct{} // closed when the mount answers
	detached chan struct{}
	done     chan struct{}
}

func newServer(f *FS, m mounts.Mount) *Server {
	return &Server{
		fs: f, mount: m,
		answers: make(chan struct{}), detached: make(chan struct{}), done: make(chan struct{}),
	}
}

// serve answers the kernel until the mount is gone.
func (s *Server) serve() {
	defer close(s.done)
	var follower sync.WaitGroup
	over := make(chan struct{})
	follower.Go(func() { s.follow(over) })
	s.raw.Serve()
	close(over)
	follower.Wait()
	s.watch.Close()
}

// follow closes detached when it is time, and returns when over is closed.
func (s *Server) follow(over <-chan struct{}) {
	select {
	case <-s.answers:
	case <-over:
		return
	}
	log := s.fs.opts.Log.With("image", s.fs.opts.Image)
	gone, err := mounts.AwaitDetached(&s.mount, over, func(pid string) {
		log.Warn("unmounted here, but a copy of the mount is in use elsewhere: "+
			"serving it until it is gone", "mountpoint", s.mount.Point, "process", pid)
	})
	if err != nil {
		log.Debug("the mount table is not watched", "err", err)
	}
	if gone {
		close(s.detached)
	}
}

// dead reports whether the kernel has dropped the connection: readers have had their answer, and
// what is read for them is of no use any more.
func (s *Server) dead() bool {
	gone := false
	conn, err := s.watch.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd)}}
			_, perr := unix.Poll(p, 0)
			gone = perr == nil && p[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0
		})
	}
	return gone || err != nil
}

// Done is closed when the mount is gone and every call is answered. After a Detach that is when its
// last user has left.
func (s *Server) Done() <-chan struct{} { return s.done }

// Detached is closed when the mount can be entered no more while files in it are open: it was
// unmounted lazily, and shows up in no process's mount table, nor below an overlay there. A mount
// that a container has copied is not detached, since its copy is in use. The server goes on: to end
// it is the caller's business.
func (s *Server) Detached() <-chan struct{} { return s.detached }

// Mounted returns the mount as it was made. Once Done is closed the kernel may have given its
// numbers to another mount.
func (s *Server) Mounted() *mounts.Mount {
	m := s.mount
	return &m
}

// Wait waits for Done.
func (s *Server) Wait() { <-s.done }

// StopReads begins the end of the mount: from now on no read begins a fill, and those that wait get
// the time grace, then EIO. What is at hand is read as before. The channel is closed when no call
// waits any more, soon after grace at the latest. A second call can shorten the grace.
func (s *Server) StopReads(grace time.Duration) <-chan struct{} { return s.fs.drain.stop(grace) }

// Unmount unmounts, which fails with mounts.ErrBusy while anything of the mount is in use. It tries
// for about 100 ms, since the kernel lets go of a file somewhat after its close. It is no error
// when the mount is gone already, by whatever means. A mount that was moved is found, and another
// mount at its place is left alone: mounts.ErrBusy when that covers it.
func (s *Server) Unmount() error {
	err := s.detach(false)
	const first, most = 10 * time.Millisecond, 100 * time.Millisecond
	for delay := first; errors.Is(err, mounts.ErrBusy) && delay < most; delay *= 2 {
		time.Sleep(delay)
		err = s.detach(false)
	}
	return err
}

// Detach unmounts also what is in use. The mount cannot be entered any more; files that are open
// stay so, and are served, until they are closed or this process ends.
func (s *Server) Detach() error { return s.detach(true) }

func (s *Server) detach(lazy bool) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	if err := mounts.Detach(&s.mount, lazy); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	return nil
}
