package daemon

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safedir"
)

// stateServer is the daemon's side of its socket.
type stateServer struct {
	http *http.Server
	over chan struct{}

	name string
	file unix.Stat_t  // the socket as it was made
	mu   sync.Mutex   // guards dir
	dir  *safedir.Dir // holds the socket; nil after Close
}

// openStateDir opens a user's directory of sockets, which must be the user's alone.
func openStateDir(path string, uid int, flags safedir.Flag) (*safedir.Dir, error) {
	dir, err := safedir.Open(path, uid, flags)
	if err != nil {
		return nil, err
	}
	if err := dir.Private(); err != nil {
		_ = dir.Close() // nothing was written
		return nil, err
	}
	return dir, nil
}

// newStateServer answers by handler at the socket name in the directory path.
func newStateServer(path, name string, handler http.Handler) (*stateServer, error) {
	s, l, err := listenState(path, name)
	if err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout: tagLimit + 5*time.Second, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		defer close(s.over)
		_ = s.http.Serve(l) // ends in Close
	}()
	return s, nil
}

// listenState makes the socket name in the directory path, in place of one that was left there.
func listenState(path, name string) (*stateServer, net.Listener, error) {
	dir, err := openStateDir(path, os.Geteuid(), safedir.Create)
	if err != nil {
		return nil, nil, err
	}
	s := &stateServer{name: name, dir: dir, over: make(chan struct{})}
	l, err := listenAt(dir, name)
	if err == nil {
		if s.file, err = dir.Stat(name); err != nil {
			_ = l.Close()
		}
	}
	if err != nil {
		_ = dir.Close()
		return nil, nil, err
	}
	return s, l, nil
}

// listenAt listens on a socket in dir that only its user may use. The socket gets the mode of its
// descriptor, so it has it from the start, and neither a chmod nor the umask of the whole process
// is needed.
func listenAt(dir *safedir.Dir, name string) (net.Listener, error) {
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
	}}
	l, err := config.Listen(context.Background(), "unix", dir.Path(name))
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // removeSocket does, by the descriptor
	return l, nil
}

// Close removes the socket and ends its server.
func (s *stateServer) Close() error {
	s.removeSocket()
	err := s.http.Close()
	<-s.over
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.dir.Close()
	s.dir = nil
	return err
}

// removeSocket removes the socket, unless another mount at the same place, made after a lazy
// unmount of this one, has put its own there.
func (s *stateServer) removeSocket() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == nil {
		return
	}
	// Inode numbers are used again at once; the time tells such files apart.
	now, err := s.dir.Stat(s.name)
	if err == nil && now.Dev == s.file.Dev && now.Ino == s.file.Ino && now.Mtim == s.file.Mtim {
		_ = s.dir.Remove(s.name)
	}
}

// removeLeftover removes the socket of a user's process that is dead.
func removeLeftover(path string, uid int) {
	dir, err := openStateDir(filepath.Dir(path), uid, 0)
	if err != nil {
		return // the next mount at its place does it
	}
	_ = dir.Remove(filepath.Base(path))
	_ = dir.Close()
}
