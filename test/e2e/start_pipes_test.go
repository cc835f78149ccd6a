package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// TestPipes: a caller that captures output gets its end at once; the daemon has nothing of the
// caller's: pipes, working folder.
func TestPipes(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, dir := e.Push(harness.Fixture(t, "basic")), e.MountDir()
		r := e.Command("timeout", "60", "python3", "-c", `
import os, subprocess, sys
r = subprocess.run(sys.argv[1:], capture_output=True, stdin=subprocess.PIPE)
sys.stdout.write(r.stdout.decode())
sys.stderr.write(r.stderr.decode())
sys.exit(r.returncode)`, e.Bin, ref, dir).Wait(harness.Limit).Want(t, 0)
		if r.Stdout != "" {
			t.Errorf("stdout is not empty: %q", r.Stdout)
		}
		if strings.ContainsAny(r.Stderr, "\x1b\r") || strings.Count(r.Stderr, "\n") >= 50 {
			t.Errorf("stderr is noisy: %q", r.Stderr)
		}
		m := e.Mounted(ref, dir)
		for fd := range 3 {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", m.PID, fd))
			if err != nil || strings.HasPrefix(to, "pipe:") || strings.HasPrefix(to, "/dev/pts") ||
				strings.HasPrefix(to, "socket:") {
				t.Errorf("descriptor %d is %q, %v", fd, to, err)
			}
		}
		for _, to := range harness.FDs(t, m.PID) {
			if strings.Contains(to, "/out-") {
				t.Errorf("the caller's file is still open: %s", to)
			}
		}
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", m.PID)); cwd != "/" {
			t.Errorf("working folder %q, %v", cwd, err)
		}
		m.Compare("world/fs", harness.Want(t, "basic"))
		if !strings.Contains(e.Logs(), "mounted") {
			t.Errorf("the log file says nothing: %q", e.Logs())
		}
	})
}

// hangUp runs a command in a new terminal, and closes the terminal when the command has ended.
const hangUp = `
import os, pty, sys
pid, master = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
out = b''
while True:
    try: b = os.read(master, 4096)
    except OSError: break
    if not b: break
    out += b
_, status = os.waitpid(pid, 0)
os.close(master)
sys.stdout.buffer.write(out)
sys.exit(os.waitstatus_to_exitcode(status))
`

// TestHangUp: the mount outlives the terminal that it was typed in, and writes no control codes to
// a pipe.
func TestHangUp(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, dir := e.Push(harness.Fixture(t, "minimal")), e.MountDir()
		r := e.Command("env", "python3", "-c", hangUp, e.Bin, ref, dir).Wait(harness.Limit).Want(t, 0)
		if strings.Contains(r.Stdout, "\x1b") {
			t.Errorf("control codes: %q", r.Stdout)
		}
		m := e.Mounted(ref, dir)
		m.Compare("world/fs", harness.Want(t, "minimal"))
		// As a terminal emulator ends, or a shell: to the daemon itself.
		e.Sh(`kill -HUP "$1"`, fmt.Sprint(m.PID)).Want(t, 0)
		harness.DropCaches(t)
		m.Compare("world/fs", harness.Want(t, "minimal"))
		m.Unmount()
	})
}
