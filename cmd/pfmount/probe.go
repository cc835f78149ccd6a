package main

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

// statLimit is how long a mount may take to answer statfs before it counts as
// hung.
const statLimit = 2 * time.Second

// killGrace is how long the end of a process that asked in vain is waited for.
const killGrace = 500 * time.Millisecond

// health is what a mount point turns out to be when asked.
type health int

const (
	alive health = iota
	stale        // its daemon is dead: ENOTCONN
	hung         // it does not answer; never removed
)

// probeVar marks the process that asks, and says whom, and as whom: UID:GID:MOUNTPOINT. To others than the mount's owner,
// also to root, FUSE says that all is well without asking the daemon.
const probeVar = "PFMOUNT_PROBE"

// exitStale is the exit code of the process that asks for a stale mount.
const exitStale = 1

// probe asks a mount for its statfs, for at most statLimit. A process of its own asks: where a daemon has taken a request
// and hangs, whoever waits for the answer cannot even be killed, and this one could not end.
func (m *mountInfo) probe() health {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"pfmount-probe"}
	cmd.Dir = "/"
	cmd.Env = helperEnv(probeVar, fmt.Sprintf("%d:%d:%s", m.uid, m.gid, m.mountpoint))
	if err := cmd.Start(); err != nil {
		return hung // as far as can be told; never removed
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(statLimit):
		_ = cmd.Process.Kill() // it may take until the daemon answers or dies
		select {
		case <-ended:
		case <-time.After(killGrace):
		}
		return hung
	}
	switch cmd.ProcessState.ExitCode() {
	case exitOK:
		return alive
	case exitStale:
		return stale
	}
	return hung
}

// helperEnv is the environment of this program's helpers: no credentials.
func helperEnv(name, value string) []string {
	return []string{name + "=" + value, "PATH=" + os.Getenv("PATH")}
}

// runProbe asks, and returns the exit code that answers.
func runProbe() int {
	f := strings.SplitN(os.Getenv(probeVar), ":", 3)
	if len(f) < 3 {
		return exitMount
	}
	uid, uerr := strconv.Atoi(f[0])
	gid, gerr := strconv.Atoi(f[1])
	if os.Geteuid() == 0 && uerr == nil && gerr == nil && uid > 0 && gid >= 0 {
		// Where it may not, it asks as it is.
		if err := syscall.Setresgid(gid, gid, gid); err == nil {
			_ = syscall.Setresuid(uid, uid, uid)
		}
	}
	var st unix.Statfs_t
	switch err := unix.Statfs(f[2], &st); err {
	case unix.ENOTCONN, unix.ECONNABORTED:
		return exitStale
	}
	return exitOK
}
