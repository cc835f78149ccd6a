package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/test/imgbuild"
)

// Mount is one mount of an Env.
type Mount struct {
	Ref string
	Dir string
	PID int // the daemon's
	env *Env
}

// MountDir makes an empty mount point of the user's.
func (e *Env) MountDir() string {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.points++
	return e.MakeDir(fmt.Sprintf("m/%d", e.points))
}

// Mount mounts ref on a new folder with options, and fails the test when that fails.
func (e *Env) Mount(ref string, options ...string) *Mount {
	e.t.Helper()
	dir := e.MountDir()
	r := e.Run(append(slices.Clone(options), ref, dir)...)
	if r.Code != 0 {
		e.t.Fatalf("mount: %v\n%s", r, e.Logs())
	}
	return e.Mounted(ref, dir)
}

// Mounted takes over a mount that the test made itself, through any command.
func (e *Env) Mounted(ref, dir string) *Mount {
	e.t.Helper()
	m := &Mount{Ref: ref, Dir: dir, env: e}
	if len(MountLines(e.t, dir)) != 1 {
		e.t.Fatalf("the command returned, but %s has %d lines in mountinfo\n%s", dir,
			len(MountLines(e.t, dir)), e.Logs())
	}
	m.PID = m.findPID()
	return m
}

// findPID finds the daemon: the Env's only process, else the one whose command line names the mount
// point, else the one that status names.
func (m *Mount) findPID() int {
	m.env.t.Helper()
	// A command just ended may still be in /proc for a moment.
	var pids []int
	for range 50 {
		if pids = slices.DeleteFunc(Pids(m.env.Bin), isGuard); len(pids) == 1 {
			return pids[0]
		}
		for _, pid := range pids {
			if slices.Contains(Cmdline(pid), m.Dir) {
				return pid
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s := m.Status(); s.PID != 0 {
		return s.PID
	}
	m.env.t.Fatalf("no daemon for %s among %v\n%s", m.Dir, pids, m.env.Logs())
	return 0
}

// IsGuard says that a process is the guard of a daemon.
func IsGuard(pid, daemon int) bool {
	return slices.Equal(Cmdline(pid), []string{"pfmount-guard", fmt.Sprintf("of %d", daemon)})
}

// isGuard tells the guard that each daemon has beside it.
func isGuard(pid int) bool {
	args := Cmdline(pid)
	return len(args) > 1 && args[0] == "pfmount-guard"
}

// Status is one mount in the JSON of the status command.
type Status struct {
	Mountpoint     string   `json:"mountpoint"`
	Image          string   `json:"image"`
	ManifestDigest string   `json:"manifest_digest"`
	PID            int      `json:"pid"`
	Stale          bool     `json:"stale"`
	FetchedBytes   int64    `json:"fetched_bytes"`
	TotalBytes     int64    `json:"total_bytes"`
	CacheHits      int64    `json:"cache_hits"`
	CacheMisses    int64    `json:"cache_misses"`
	WaitedReads    int64    `json:"waited_reads"`
	Shown          int64    `json:"shown"`
	Goroutines     int      `json:"goroutines"`
	LastErrors     []string `json:"last_errors"`
}

// Status asks `status DIR --json`.
func (m *Mount) Status() Status {
	m.env.t.Helper()
	r := m.env.Run("status", m.Dir, "--json").Want(m.env.t, 0)
	var all struct{ Mounts []Status }
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil || len(all.Mounts) != 1 {
		m.env.t.Fatalf("status of one mount: %v: %v", err, r)
	}
	return all.Mounts[0]
}

// Path is a path in the mount.
func (m *Mount) Path(name string) string { return filepath.Join(m.Dir, name) }

// Read reads a file of the mount.
func (m *Mount) Read(name string) []byte {
	m.env.t.Helper()
	data, err := m.ReadErr(name)
	if err != nil {
		m.env.t.Fatalf("%v\n%s", err, m.env.Logs())
	}
	return data
}

// ReadErr reads a file of the mount and gives what came, and the error.
func (m *Mount) ReadErr(name string) (data []byte, err error) {
	err = m.env.Do(func() error {
		f, err := os.Open(m.Path(name))
		if err != nil {
			return err
		}
		defer f.Close()
		data, err = io.ReadAll(f)
		return err
	})
	return data, err
}

// ReadAt reads a part of a file of the mount.
func (m *Mount) ReadAt(name string, p []byte, off int64) (n int, err error) {
	err = m.env.Do(func() error {
		f, err := os.Open(m.Path(name))
		if err != nil {
			return err
		}
		defer f.Close()
		n, err = f.ReadAt(p, off)
		return err
	})
	return n, err
}

// Tree walks a folder of the mount; with hash it reads every file.
func (m *Mount) Tree(dir string, hash bool) []Node {
	m.env.t.Helper()
	var nodes []Node
	err := m.env.Do(func() (err error) {
		nodes, err = Walk(m.Path(dir), hash)
		return err
	})
	if err != nil {
		m.env.t.Fatalf("%v\n%s", err, m.env.Logs())
	}
	return nodes
}

// Compare fails the test unless a folder of the mount shows exactly want.
func (m *Mount) Compare(dir string, want []imgbuild.Want) {
	m.env.t.Helper()
	if diff := Diff(m.Tree(dir, true), want); len(diff) > 0 {
		m.env.t.Errorf("%s of %s differs in %d places:\n%s", dir, m.Ref, len(diff),
			strings.Join(diff[:min(20, len(diff))], "\n"))
	}
}

// Unmount unmounts with the umount command and checks that mount and daemon are gone.
func (m *Mount) Unmount() {
	m.env.t.Helper()
	r := m.env.Run("umount", m.Dir)
	for range passes {
		if !passing(r) {
			break
		}
		time.Sleep(50 * time.Millisecond)
		r = m.env.Run("umount", m.Dir)
	}
	r.Want(m.env.t, 0)
	m.Gone()
}

// passes is how often an umount is tried again.
const passes = 40

// passing tells whether an umount failed by what passes: a program that another test starts has a
// copy of each file that this process has open, until it is that program.
func passing(r Result) bool {
	name := filepath.Base(os.Args[0])
	return r.Code != 0 && strings.Contains(r.Stderr, "("+name[:min(len(name), 15)]+")")
}

// Gone fails the test unless neither the mount nor its daemon is left, now or within a moment.
func (m *Mount) Gone() {
	m.env.t.Helper()
	Eventually(m.env.t, 30*time.Second, "end of the daemon of "+m.Dir, func() bool { return !Alive(m.PID) })
	if lines := MountLines(m.env.t, m.Dir); len(lines) > 0 {
		m.env.t.Fatalf("the daemon has ended, its mount has not: %v", lines)
	}
}

// Kill9 kills the daemon, which leaves a stale mount; the Env clears it at its end.
func (m *Mount) Kill9() {
	m.env.t.Helper()
	m.env.Crash()
	if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil {
		m.env.t.Fatal(err)
	}
	guard := func(pid int) bool { return IsGuard(pid, m.PID) }
	Eventually(m.env.t, 30*time.Second, "end of the killed daemon", func() bool {
		return !Alive(m.PID) && !slices.ContainsFunc(Pids(m.env.Bin), guard)
	})
}
