package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// A mount lives in a background process: the command starts itself again and waits on a pipe until
// the child says that the mount answers, or why it does not. The child keeps the caller's stderr
// until then, since fusermount3 prints its reasons there. It keeps the caller's process group as
// well: below an automount (autofs, x-systemd.automount) every lookup of the mount point by a
// process of another group waits until this very mount is made.

// readyVar names the child's end of the pipe.
const readyVar = "PFMOUNT_READY_FD"

// mountpointVar hands the child the mount point as its parent has resolved it. The child opens that
// path anew, without following a link, checks it again and holds it until it is mounted on: what
// the arguments lead to may be another directory by then. A descriptor of the parent's would be of
// no use where a stale mount, which only the child clears, covers the directory.
const mountpointVar = "PFMOUNT_MOUNTPOINT"

// readiness is what the child sends, once. An end of the pipe without it means that the child died.
type readiness struct {
	Code    int    `json:"code"` // 0: the mount answers
	Message string `json:"message,omitempty"`
}

// childGrace is how long a child may take to end after Ctrl-C: it has to take down a mount (5 s at
// most) before it goes.
const childGrace = 6 * time.Second

// Start starts this program again in the background, with the same arguments, and returns when the
// mount answers. stdin is short enough for a pipe to hold it; nil is /dev/null.
func Start(ctx context.Context, mountpoint string, stdin io.Reader, in *Interrupts) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stderr = stdin, os.Stderr
	cmd.ExtraFiles = []*os.File{w} // becomes 3
	cmd.Env = append(os.Environ(), readyVar+"=3", mountpointVar+"="+mountpoint)
	if err := cmd.Start(); err != nil {
		w.Close()
		return fault.Mountf("starting the background process: %w", err)
	}
	w.Close()
	in.AtSecond(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // its second, too
		waitGone(cmd, secondGrace)
	})
	answer := make(chan error, 1)
	go func() { answer <- awaitReady(r) }()
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = stopChild(cmd, answer)
	}
	if err != nil {
		_ = cmd.Wait() // it has reported and is going, or is dead
		return err
	}
	return cmd.Process.Release()
}

// awaitReady reads the child's one message.
func awaitReady(r io.Reader) error {
	var msg readiness
	if err := json.NewDecoder(io.LimitReader(r, 64<<10)).Decode(&msg); err != nil {
		return fault.Mountf("the background process ended before the mount was ready")
	}
	if msg.Code != 0 {
		return RemoteError(msg)
	}
	return nil
}

// stopChild ends a child that was interrupted before it was ready.
func stopChild(cmd *exec.Cmd, answer <-chan error) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-answer:
		// Ready after all, or failed: either way it has the signal.
		waitGone(cmd, childGrace)
	case <-time.After(childGrace):
		_ = cmd.Process.Kill()
	}
	return context.Canceled
}

func waitGone(cmd *exec.Cmd, limit time.Duration) {
	t := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	defer t.Stop()
	_, _ = cmd.Process.Wait()
}

// Parent is the process that started this one in the background and waits for its report.
type Parent struct {
	Mountpoint string // as the parent has resolved it

	pipe *os.File // nil after the report
}

// TakeParent takes the parent out of the environment: nil where this is no background process.
func TakeParent() (*Parent, error) {
	value := os.Getenv(readyVar)
	if value == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s is not a descriptor", readyVar)
	}
	p := &Parent{Mountpoint: os.Getenv(mountpointVar)}
	if err := errors.Join(os.Unsetenv(readyVar), os.Unsetenv(mountpointVar)); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	p.pipe = os.NewFile(uintptr(fd), "ready")
	return p, nil
}

// report tells the parent how the start went, once. code is that of err.
func (p *Parent) report(code int, err error) error {
	if p.pipe == nil {
		return nil
	}
	msg := readiness{Code: code}
	if err != nil {
		msg.Message = err.Error()
	}
	werr := json.NewEncoder(p.pipe).Encode(msg)
	p.pipe.Close()
	p.pipe = nil
	return werr
}

// detach lets go of the caller: the process has a session and a process group of its own and no
// terminal, stdin, stdout and stderr lead nowhere, the working directory is /. A crash, which the
// Go runtime would write to stderr, is written to the log by the guard, also when the log was
// rotated in between. Below an automount, a lookup of the mount point between detach and the report
// to the parent would never return.
func detach() error {
	if _, err := syscall.Setsid(); err != nil {
		return os.NewSyscallError("setsid", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return os.Chdir("/")
}
