package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// A mount whose process crashes would stay behind, dead. No process can clean up after its own panic in whatever
// goroutine, so each mount has a guard: this program once more, small and idle, that reads from a pipe into which the Go
// runtime writes when the process crashes (runtime/debug.SetCrashOutput). An end of the pipe without a word means that
// the process ended in order, or was killed; then the guard goes, too.

// guardVar marks the guard's process.
const guardVar = "PFMOUNT_GUARD"

const (
	maxCrash   = 1 << 20         // bytes of a crash report that are kept
	guardLook  = time.Second     // how often a guard looks at its process
	guardGrace = time.Second     // how long the end of a mount waits for its guard
	crashGrace = 4 * time.Second // how long the kernel may take to end the connection of a dead process
)

// guard is the daemon's end. A nil one guards nothing.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// charge is what a guard has to know, sent as the pipe's first line: arguments can be seen by everybody.
// Paths are bytes, which JSON leaves as they are.
type charge struct {
	Image      string
	PID        int
	Mountpoint []byte
	LogFile    []byte // empty: stderr
	Socket     []byte
	On         int // the mount that holds the mount point
}

// made is the pipe's second line: which mount it became.
type made struct {
	ID  int
	Dev string
}

// startGuard starts the guard of a mount that is about to be.
func startGuard(c charge) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"pfmount-guard", fmt.Sprintf("of %d", c.PID)}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{r}                                   // becomes 3
	cmd.Env = []string{guardVar + "=1", "PATH=" + os.Getenv("PATH")} // no credentials
	// Outside the caller's group no mount point may be looked up before the mount is ready (see
	// background.go); the guard looks up none before its process has died.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the daemon
	if len(c.LogFile) == 0 {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	g := &guard{cmd, w}
	if err := json.NewEncoder(w).Encode(c); err != nil {
		g.kill()
		return nil, err
	}
	if err := debug.SetCrashOutput(w, debug.CrashOptions{}); err != nil {
		g.kill()
		return nil, err
	}
	return g, nil
}

// tell tells the guard which mount it guards.
func (g *guard) tell(m *mounts.Mount) error {
	if g == nil {
		return nil
	}
	return json.NewEncoder(g.pipe).Encode(made{m.ID, m.Dev})
}

// Close ends the guard. What crashes later leaves a stale mount, if any is left.
func (g *guard) Close() {
	if g == nil {
		return
	}
	g.pipe.Close()
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{}) // closes the runtime's copy
	t := time.AfterFunc(guardGrace, func() { _ = g.cmd.Process.Kill() })
	defer t.Stop()
	_ = g.cmd.Wait()
}

func (g *guard) kill() {
	g.pipe.Close()
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
}

// runGuard is the guard's whole life; it returns the exit code.
func runGuard() int {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	pipe := bufio.NewReaderSize(os.NewFile(3, "crash"), 4096)
	var c charge
	line, err := pipe.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &c)
	}
	if err != nil {
		return exitMount
	}
	g := &ward{charge: c}
	go g.watch()
	if next, _ := pipe.Peek(1); string(next) == "{" { // a report begins otherwise
		if line, err = pipe.ReadBytes('\n'); err == nil {
			g.learn(line)
		}
	}
	report, _ := io.ReadAll(io.LimitReader(pipe, maxCrash))
	if len(report) == 0 {
		return exitOK
	}
	_, _ = io.Copy(io.Discard, pipe) // the rest, until the process is gone
	log, done := c.logger(report)
	defer done()
	removeLeftover(string(c.Socket), os.Geteuid())
	if err := g.unmount(); err != nil {
		log.Error("the process of a mount crashed, and the mount cannot be detached", "image", c.Image, "mountpoint", string(c.Mountpoint), "error", err)
		return exitMount
	}
	log.Error("the process of a mount crashed: unmounted", "image", c.Image, "mountpoint", string(c.Mountpoint), "process", c.PID)
	return exitOK
}

// ward is what a guard guards, as far as it was told.
type ward struct {
	charge
	made atomic.Pointer[made]
}

// learn takes the pipe's second line.
func (g *ward) learn(line []byte) {
	var m made
	if err := json.Unmarshal(line, &m); err == nil {
		g.made.Store(&m)
	}
}

// find returns the mount as it is now, or nil: the one that was made, or, where the process ended before it could tell, the
// one that is seen in its place.
func (g *ward) find() (*mounts.Mount, error) {
	table, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	if m := g.made.Load(); m != nil {
		return table.Find(&mounts.Mount{ID: m.ID, Dev: m.Dev}), nil
	}
	if top := table.Top(string(g.Mountpoint)); top != nil && top.Ours() && top.Parent == g.On {
		return top, nil
	}
	return nil, nil
}

// watch ends the connection of a process that was killed and yet is not gone: the kernel may hold it in the middle of a
// Store, and readers with it, which would wait for ever.
func (g *ward) watch() {
	for was := false; ; time.Sleep(guardLook) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.PID))
		dying := bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z")) // its first thread is gone, and not all are
		if dying && was {
			m, err := g.find()
			if err == nil && m != nil && mounts.Probe(m) != mounts.Alive { // another mount may have its numbers by now
				_ = mounts.Abort(m) // nobody is left to tell why not
			}
		}
		was = dying
	}
}

// logger opens the mount's log and writes the crash report into it. On stderr the runtime has written it already.
func (c charge) logger(report []byte) (*slog.Logger, func()) {
	if len(c.LogFile) == 0 {
		return consoleLogger(false), func() {}
	}
	file, err := logFile(string(c.LogFile))
	if err != nil { // to unmount is what matters
		return slog.New(slog.DiscardHandler), func() {}
	}
	_, _ = file.Write(report)
	return slog.New(slog.NewTextHandler(file, nil)), func() { file.Close() }
}

// unmount detaches the mount once it is stale. Whatever else is at its place is left alone.
func (g *ward) unmount() error {
	for end := time.Now().Add(crashGrace); ; time.Sleep(20 * time.Millisecond) {
		m, err := g.find()
		if err != nil || m == nil {
			return err
		}
		if mounts.Probe(m) == mounts.Stale {
			return mounts.Detach(m, true)
		}
		if time.Now().After(end) {
			return errors.New("another mount is at its place or over it")
		}
	}
}

// guardMount starts the guard of a mount at the folder. Without one it is served all the same.
func (d *daemon) guardMount(at *mounts.Dir) *guard {
	socket := filepath.Join(stateDir(os.Geteuid()), socketName(d.cfg.mountpoint))
	g, err := startGuard(charge{d.cfg.image, os.Getpid(), []byte(d.cfg.mountpoint), []byte(d.guardLog), []byte(socket), at.MountID()})
	if err != nil {
		d.log.Warn("no guard: a crash would leave the mount behind, to be removed with pfmount umount", "error", err)
		return nil
	}
	return g
}
