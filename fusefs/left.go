package fusefs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

const (
	// settleTime is how long a change of the mount table is left alone before anybody looks: a plain unmount has ended
	// the server by then, and where mounts come and go all the time it bounds the looking.
	settleTime = 300 * time.Millisecond
	// copyPoll is how often a server that only copies keep alive looks whether they are still there. Nothing tells it.
	copyPoll = 10 * time.Second
)

// Left is closed when nobody can get into the mount any more while files in it are open: it was detached lazily, by
// whoever, and shows up in no process's mount table, nor below an overlay there. A mount that a container has copied is
// not left, since its copy is in use. The server goes on: to end it is the caller's business.
func (s *Server) Left() <-chan struct{} { return s.left }

// follow closes left when it is time, and returns when over is closed.
func (s *Server) follow(over <-chan struct{}) {
	select {
	case <-s.answers:
	case <-over:
		return
	}
	table, err := os.Open(mounts.Self)
	if err != nil {
		s.fs.opts.Log.Debug("the mount table is not watched", "image", s.fs.opts.Image, "err", err)
		return
	}
	var closer sync.WaitGroup
	closer.Go(func() {
		<-over
		table.Close()
	})
	s.watchTable(table, over)
	closer.Wait()
}

// watchTable waits until the mount has left; it gives up when over is closed, and table with it.
func (s *Server) watchTable(table *os.File, over <-chan struct{}) {
	said := false
	for changed(table) {
		for wait := settleTime; ; wait = copyPoll {
			select {
			case <-over:
				return
			case <-time.After(wait):
			}
			if inTable(mounts.Self, &s.mount) {
				break // and wait for the next change
			}
			pid := copyHolder(&s.mount)
			if pid == "" {
				close(s.left)
				return
			}
			if !said {
				said = true
				s.fs.opts.Log.Warn("unmounted here, but a copy of the mount is in use elsewhere: serving it until it is gone",
					"image", s.fs.opts.Image, "mountpoint", s.mount.Point, "process", pid)
			}
		}
	}
}

// changed waits for the next change of a mount table (poll(2) says so, see proc_pid_mounts(5)); false when it is closed.
// The first call may return at once.
func changed(table *os.File) bool {
	conn, err := table.SyscallConn()
	if err != nil {
		return false
	}
	asked := false
	err = conn.Read(func(uintptr) bool {
		// The table is always readable; false sends the runtime's poller to wait for the next event.
		defer func() { asked = true }()
		return asked
	})
	return err == nil
}

// copyHolder returns a process in whose mount table the mount is, "" when there is none that this one may look at.
func copyHolder(m *mounts.Mount) string {
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo") // the pattern is well formed
	seen := make(map[string]bool)
	for _, name := range tables {
		pid := filepath.Base(filepath.Dir(name))
		ns, err := os.Readlink("/proc/" + pid + "/ns/mnt")
		if err == nil && seen[ns] { // others' processes do not tell their namespace, but show their table
			continue
		}
		seen[ns] = err == nil
		if inTable(name, m) {
			return pid
		}
	}
	return ""
}

// inTable reports whether the file name, a mount table, shows the file system of m, or an overlay that lies over it. What
// cannot be read shows nothing.
func inTable(name string, m *mounts.Mount) bool {
	table, err := mounts.ReadFile(name)
	return err == nil && shows(table, m)
}

// shows is inTable for a table. An overlay has a mount of its own of each lower folder, in no table; only its options name
// them, in the words of whatever mounted it.
func shows(table mounts.Table, m *mounts.Mount) bool {
	return slices.ContainsFunc(table, func(other mounts.Mount) bool {
		return other.Dev == m.Dev || other.Type == "overlay" && strings.Contains(other.Super, m.Point)
	})
}
