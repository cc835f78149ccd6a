package mounts

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ProbeLimit is how long a mount may take to answer statfs before it counts as hung.
const ProbeLimit = 2 * time.Second

// killGrace is how long the end of a process that asked in vain is waited for.
const killGrace = 500 * time.Millisecond

// Health is what Probe finds a mount to be.
type Health int

// What a mount can be.
const (
	Alive Health = iota
	Stale        // its process is dead: ENOTCONN
	Hung         // it does not answer, or cannot be asked; never to be removed
)

// ProbeVar marks the process that asks for Probe. Its value says which mount, and as which user:
// UID:GID:ID:MOUNTPOINT. To users other than the mount's owner, also to root, FUSE says that all is
// well without asking the process that serves the mount.
const ProbeVar = "PFMOUNT_PROBE"

// The exit codes of the process that asks.
const (
	probeAlive   = 0
	probeStale   = 1
	probeUnknown = 2
)

// Probe asks a mount for its statfs, for at most ProbeLimit. It starts this program once more to
// ask, which has to call RunProbe where ProbeVar is set: while the process that serves a mount has
// taken a request and hangs, a process that waits for the answer cannot even be killed.
func Probe(m *Mount) Health {
	if os.Getenv(ProbeVar) != "" {
		return Hung // this is such a process, which did not call RunProbe: it must start no other
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"pfmount-probe"}
	cmd.Dir = "/"
	question := fmt.Sprintf("%s=%d:%d:%d:%s", ProbeVar, m.UID, m.GID, m.ID, m.Point)
	cmd.Env = []string{question, "PATH=" + os.Getenv("PATH")} // no credentials
	if err := cmd.Start(); err != nil {
		return Hung
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(ProbeLimit):
		_ = cmd.Process.Kill() // it may take until the mount's process answers or dies
		select {
		case <-ended:
		case <-time.After(killGrace):
		}
		return Hung
	}
	switch cmd.ProcessState.ExitCode() {
	case probeAlive:
		return Alive
	case probeStale:
		return Stale
	}
	return Hung
}

// RunProbe asks what ProbeVar says, and returns the exit code that answers.
func RunProbe() int {
	f := strings.SplitN(os.Getenv(ProbeVar), ":", 4)
	if len(f) < 4 {
		return probeUnknown
	}
	uid, uerr := strconv.Atoi(f[0])
	gid, gerr := strconv.Atoi(f[1])
	if os.Geteuid() == 0 && uerr == nil && gerr == nil && uid > 0 && gid >= 0 {
		// Where it may not, it asks as it is.
		if err := syscall.Setresgid(gid, gid, gid); err == nil {
			_ = syscall.Setresuid(uid, uid, uid)
		}
	}
	at, err := Hold(f[3])
	if err != nil {
		return probeUnknown
	}
	defer at.Close()
	if strconv.Itoa(at.MountID()) != f[2] {
		return probeUnknown // covered: what lies over it is not what was asked for
	}
	switch at.statfs() {
	case unix.ENOTCONN, unix.ECONNABORTED:
		return probeStale
	}
	return probeAlive
}
