package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// A mount whose process crashes would stay behind, dead. No process can clean up after a panic of
// its own in any goroutine, so each mount has a guard: this program once more, small and idle, that
// reads from a pipe into which the Go runtime writes when the process crashes
// (runtime/debug.SetCrashOutput). An end of the pipe without a word means that the process ended in
// order, or was killed; then the guard ends, too.

// GuardVar marks the guard's process, which has to call RunGuard.
const GuardVar = "PFMOUNT_GUARD"

// guardGrace is how long the end of a mount waits for its guard.
const guardGrace = time.Second

// guard is the daemon's end. A nil one guards nothing.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File
}

// guardConfig is what a guard has to know, sent as the pipe's first line: arguments can be seen by
// all users. Paths are bytes, which JSON leaves as they are.
type guardConfig struct {
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

// startGuard starts the guard of a mount that is about to be made.
func startGuard(c guardConfig) (*guard, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"pfmount-guard", fmt.Sprintf("of %d", c.PID)}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{r}                                   // becomes 3
	cmd.Env = []string{GuardVar + "=1", "PATH=" + os.Getenv("PATH")} // no credentials
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
