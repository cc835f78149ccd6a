package main

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
)

// A mount lives in a background process: the command starts itself again and
// waits on a pipe until the child says that the mount answers, or why it does
// not. The child keeps the caller's stderr until then, since fusermount3 prints
// its reasons there. It keeps the caller's process group as well: below an
// automount (autofs, x-systemd.automount) every lookup of the mount point by a
// process of another group waits until this very mount is made.

// readyVar names the child's end of the pipe.
const readyVar = "PFMOUNT_READY_FD"

// mountpointVar hands the child the mount point as its parent has resolved it.
// The child opens that path anew, without following a link, checks it again
// and holds it until it is mounted on: what the arguments lead to may be
// another folder by then. A descriptor of the parent's would be of no use
// where a stale mount, which only the child clears, covers the folder.
const mountpointVar = "PFMOUNT_MOUNTPOINT"

// readiness is what the child sends, once. An end of the pipe without it means
// that the child died.
type readiness struct {
	Code    int    `json:"code"`
	Message string `json:"message,omitempty"`
}

// remoteError is a failure that the child reported.
type remoteError struct {
	code    int
	message string
}

func (e remoteError) Error() string { return e.message }

// childGrace is how long a child may take to end after Ctrl-C: it has to take
// down a mount (5 s at most) before it goes.
const childGrace = 6 * time.Second

func isChild() bool { return os.Getenv(readyVar) != "" }

// startBackground starts the child and returns when the mount answers. stdin
// is short enough for a pipe to hold it; nil is /dev/null.
func startBackground(ctx context.Context, mountpoint string, stdin io.Reader) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stderr = stdin, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), readyVar+"=3", mountpointVar+"="+mountpoint)
	if err := cmd.Start(); err != nil {
		w.Close()
		return mountf("starting the background process: %w", err)
	}
	w.Close()
	atSecond(ctx, func() {
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
		return mountf("the background process ended before the mount was ready")
	}
	if msg.Code != exitOK {
		return remoteError{msg.Code, msg.Message}
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

// A reporter is the child's end of the pipe. Its methods may be called when
// there is no parent, and do nothing then.
type reporter struct{ pipe *os.File }

func newReporter() (*reporter, error) {
	fd, err := strconv.Atoi(os.Getenv(readyVar))
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s is not a descriptor", readyVar)
	}
	if err := errors.Join(os.Unsetenv(readyVar), os.Unsetenv(mountpointVar)); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return &reporter{os.NewFile(uintptr(fd), "ready")}, nil
}

// send tells the parent how the start went, once.
func (r *reporter) send(err error) error {
	if r.pipe == nil {
		return nil
	}
	msg := readiness{Code: exitCode(err)}
	if err != nil {
		msg.Message = err.Error()
		if errors.Is(err, context.Canceled) {
			msg.Code = exitInterrupted
		}
	}
	werr := json.NewEncoder(r.pipe).Encode(msg)
	r.pipe.Close()
	r.pipe = nil
	return werr
}

// terminalSignals are what a terminal sends to the whole process group of a command.
var terminalSignals = []os.Signal{syscall.SIGINT, syscall.SIGTSTP, syscall.SIGTTOU}

// detach lets go of the caller: the process has a session and a process group of its own and no
// terminal, stdin, stdout and stderr lead nowhere, the working folder is /. A crash, which the Go
// runtime would write to stderr, is written to the log by the guard, also when the log was rotated
// in between. Below an automount, a lookup of the mount point between detach and the report to the
// parent would never return.
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
