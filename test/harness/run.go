package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Limit is the time after which a command counts as hanging. It is far above what any takes.
const Limit = 3 * time.Minute

// Result is how a command ended. Code is -1 after a signal, which Signal names.
type Result struct {
	Args           []string
	Code           int
	Signal         syscall.Signal
	Stdout, Stderr string
	Took           time.Duration
}

// String shows the whole result for messages.
func (r Result) String() string {
	return fmt.Sprintf("%q: exit %d (signal %d) after %v\nstdout: %s\nstderr: %s",
		r.Args, r.Code, r.Signal, r.Took.Round(time.Millisecond), clip(r.Stdout), clip(r.Stderr))
}

// clip keeps the ends of long texts.
func clip(s string) string {
	const most = 6000
	if len(s) <= most {
		return s
	}
	return s[:most/2] + "\n[…]\n" + s[len(s)-most/2:]
}

// Want fails the test unless the exit code is code and stderr holds each text, in any case.
func (r Result) Want(t testing.TB, code int, stderr ...string) Result {
	t.Helper()
	if r.Code != code {
		t.Fatalf("want exit %d: %v", code, r)
	}
	for _, s := range stderr {
		if !strings.Contains(strings.ToLower(r.Stderr), strings.ToLower(s)) {
			t.Fatalf("stderr has no %q: %v", s, r)
		}
	}
	return r
}

// Process is a command that runs. Its output goes to files, so a daemon that keeps them open blocks
// no Wait.
type Process struct {
	Cmd      *exec.Cmd
	t        testing.TB
	args     []string
	start    time.Time
	out, err *os.File
	wait     func() error
	done     chan struct{}
}

// Run runs the binary and waits.
func (e *Env) Run(args ...string) Result {
	e.t.Helper()
	return e.Start(args...).Wait(Limit)
}

// Start starts the binary.
func (e *Env) Start(args ...string) *Process {
	e.t.Helper()
	return e.Command(append([]string{e.Bin}, args...)...)
}

// Sh runs a shell script as the user; args are $1, $2, …. Any failing command of it ends it.
func (e *Env) Sh(script string, args ...string) Result {
	e.t.Helper()
	return e.Command(append([]string{"bash", "-euo", "pipefail", "-c", script, "bash"},
		args...)...).Wait(Limit)
}

// Command starts a command as the user, in a process group of its own, in the Env's home.
func (e *Env) Command(argv ...string) *Process {
	e.t.Helper()
	full, cred := argv, e.user.credential()
	if len(e.Prefix) > 0 {
		full = append([]string{}, e.Prefix...)
		if cred != nil {
			// The prefix needs root; the command behind it must not have it.
			full = append(full, "setpriv", fmt.Sprintf("--reuid=%d", cred.Uid),
				fmt.Sprintf("--regid=%d", cred.Gid), "--clear-groups")
			cred = nil
		}
		full = append(full, argv...)
	}
	p := &Process{Cmd: exec.Command(full[0], full[1:]...), t: e.t, args: argv, done: make(chan struct{})}
	p.out, p.err = e.scratch(), e.scratch()
	p.Cmd.Dir, p.Cmd.Env, p.Cmd.Stdout, p.Cmd.Stderr = e.Path("home"), e.environ(), p.out, p.err
	p.Cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: cred}
	p.start = time.Now()
	if err := p.Cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	p.wait = sync.OnceValue(p.Cmd.Wait)
	go func() {
		p.wait()
		close(p.done)
	}()
	return p
}

// scratch is an unlinked file for output.
func (e *Env) scratch() *os.File {
	e.t.Helper()
	f, err := os.CreateTemp(e.Dir, "out-")
	if err != nil {
		e.t.Fatal(err)
	}
	os.Remove(f.Name())
	return f
}

// Signal sends a signal to the process, not to its group.
func (p *Process) Signal(s syscall.Signal) { p.Cmd.Process.Signal(s) }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait waits for the end; after limit the group is made to print its goroutines and killed, and the
// test fails.
func (p *Process) Wait(limit time.Duration) Result {
	p.t.Helper()
	select {
	case <-p.done:
		return p.result()
	case <-time.After(limit):
	}
	p.Abort()
	p.t.Fatalf("still running after %v: %v", limit, p.result())
	return Result{}
}

// Abort makes the process group print its goroutines and ends it.
func (p *Process) Abort() {
	syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGABRT)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	p.Kill()
}

// Kill ends the process group.
func (p *Process) Kill() {
	syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func (p *Process) result() Result {
	r := Result{Args: p.args, Took: time.Since(p.start), Stdout: p.Stdout(), Stderr: p.Stderr()}
	var exit *exec.ExitError
	if err := p.wait(); errors.As(err, &exit) {
		r.Code = exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			r.Signal = ws.Signal()
		}
	} else if err != nil {
		p.t.Fatalf("%q: %v", p.args, err)
	}
	return r
}

// Stdout is what the process wrote so far.
func (p *Process) Stdout() string { return content(p.out) }

// Stderr is what the process wrote so far.
func (p *Process) Stderr() string { return content(p.err) }

func content(f *os.File) string {
	st, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, st.Size())
	n, _ := f.ReadAt(b, 0)
	return string(b[:n])
}
