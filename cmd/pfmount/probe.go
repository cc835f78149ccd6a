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

	"github.com/pfmount/pfmount/fusefs"
	"github.com/pfmount/pfmount/fusefs/mounts"
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

// probeVar marks the process that asks, and says which mount, and as which user: UID:GID:ID:MOUNTPOINT. To others than the
// mount's owner, also to root, FUSE says that all is well without asking the daemon.
const probeVar = "PFMOUNT_PROBE"

// exitStale is the exit code of the process that asks for a stale mount.
const exitStale = 1

// probe asks a mount for its statfs, for at most statLimit. A process of its own asks: where a daemon has taken a request
// and hangs, whoever waits for the answer cannot even be killed, and this one could not end.
func probe(m *mounts.Mount) health {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"pfmount-probe"}
	cmd.Dir = "/"
	cmd.Env = helperEnv(probeVar, fmt.Sprintf("%d:%d:%d:%s", m.UID, m.GID, m.ID, m.Point))
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
	f := strings.SplitN(os.Getenv(probeVar), ":", 4)
	if len(f) < 4 {
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
	at, err := fusefs.Hold(f[3])
	if err != nil {
		return exitMount
	}
	defer at.Close()
	if strconv.Itoa(at.MountID()) != f[2] {
		return exitMount // covered: what lies over it is not what was asked for
	}
	switch at.Statfs() {
	case unix.ENOTCONN, unix.ECONNABORTED:
		return exitStale
	}
	return exitOK
}
