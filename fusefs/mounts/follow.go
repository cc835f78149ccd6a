package mounts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// settleTime is how long a change of the mount table is left alone before AwaitDetached looks:
	// a plain unmount has ended the mount's process by then, and where mounts come and go all the
	// time it bounds the looking.
	settleTime = 300 * time.Millisecond
	// copyPoll is how often AwaitDetached looks for copies of a mount. No event tells of their end.
	copyPoll = 10 * time.Second
)

// AwaitDetached waits until the mount m can be entered no more, and reports true then: it shows up
// in no process's mount table, nor below an overlay there. A mount that a container has copied is
// not detached, since its copy is in use; copied is called once with a process that has one. The
// wait ends with false when over is closed.
func AwaitDetached(m *Mount, over <-chan struct{}, copied func(pid string)) (bool, error) {
	table, err := os.Open(Self)
	if err != nil {
		return false, err
	}
	found := make(chan struct{})
	var closer sync.WaitGroup
	closer.Go(func() {
		select {
		case <-over:
		case <-found:
		}
		table.Close()
	})
	detached := awaitDetached(m, table, over, copied)
	close(found)
	closer.Wait()
	return detached, nil
}

func awaitDetached(m *Mount, table *os.File, over <-chan struct{}, copied func(string)) bool {
	said := false
	for changed(table) {
		for wait := settleTime; ; wait = copyPoll {
			select {
			case <-over:
				return false
			case <-time.After(wait):
			}
			if inTable(Self, m) {
				break // and wait for the next change
			}
			pid := copyHolder(m)
			if pid == "" {
				return true
			}
			if !said {
				said = true
				copied(pid)
			}
		}
	}
	return false
}

// changed waits for the next change of a mount table, which poll(2) reports (proc_pid_mounts(5));
// it returns false when the table is closed. The first call may return at once.
func changed(table *os.File) bool {
	conn, err := table.SyscallConn()
	if err != nil {
		return false
	}
	asked := false
	err = conn.Read(func(uintptr) bool {
		// The table is always readable; false sends the runtime's poller to wait for the next
		// event.
		defer func() { asked = true }()
		return asked
	})
	return err == nil
}

// copyHolder returns a process in whose mount table the mount is, "" when there is none that this
// one may look at.
func copyHolder(m *Mount) string {
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo") // the pattern is well formed
	seen := make(map[string]bool)
	for _, name := range tables {
		pid := filepath.Base(filepath.Dir(name))
		ns, err := os.Readlink("/proc/" + pid + "/ns/mnt")
		if err == nil && seen[ns] { // other users' processes hide their namespace, not their table
			continue
		}
		seen[ns] = err == nil
		if inTable(name, m) {
			return pid
		}
	}
	return ""
}

// inTable reports whether the file name, a mount table, shows the file system of m, or an overlay
// that lies over it. What cannot be read shows nothing.
func inTable(name string, m *Mount) bool {
	table, err := ReadFile(name)
	return err == nil && shows(table, m)
}

// shows is inTable for a table. An overlay has a mount of its own of each lower directory, in no
// table; only its options name them, in the words of whatever mounted it.
func shows(table Table, m *Mount) bool {
	return slices.ContainsFunc(table, func(other Mount) bool {
		return other.Dev == m.Dev ||
			other.Type == "overlay" && strings.Contains(other.Super, m.Point)
	})
}
