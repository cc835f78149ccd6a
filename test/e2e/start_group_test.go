package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// ids are a process's group, session and terminal (0: none), see proc_pid_stat(5).
type ids struct{ pid, group, session, terminal int }

// idsOf gives those of the Env's processes but guards, in order of their numbers.
func idsOf(t *testing.T, e *harness.Env) (all []ids) {
	t.Helper()
	for _, pid := range harness.Pids(e.Bin) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if args := harness.Cmdline(pid); err != nil || len(args) == 0 || args[0] == "pfmount-guard" {
			continue
		}
		p, state, parent := ids{pid: pid}, "", 0
		rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
		if _, err := fmt.Sscan(rest, &state, &parent, &p.group, &p.session, &p.terminal); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b ids) int { return a.pid - b.pid })
	return all
}

// job runs a command as an interactive shell does: as a job, in the foreground. When it was stopped,
// it goes on after a line was typed.
const job = `set -m; code=0; "$@" || code=$?
if [ $code -gt 128 ] && [ -n "$(jobs -s)" ]; then
  echo stopped; read -r line; code=0; fg >/dev/null || code=$?
fi
exit $code`

// TestTerminal: while a mount is made, its processes are one group on the caller's terminal, and
// Ctrl-C ends both; Ctrl-Z does not stop the one that mounts. A mount that stands has left group,
// session and terminal, and ends by SIGINT.
func TestTerminal(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, dir, stall := e.Push(harness.Fixture(t, "minimal")), e.MountDir(), faultreg.NewHold()
		defer stall.Release()
		e.Registry().On(faultreg.Match{Kind: faultreg.Manifest}, stall.Fault())
		script := e.WriteFile("home/job", []byte(job), 0o600)
		begin := func() (p *harness.Process, keys *os.File) {
			fifo := e.Path("home/keys")
			e.Sh(`rm -f "$1"; mkfifo "$1"`, fifo).Want(t, 0)
			keys, err := os.OpenFile(fifo, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { keys.Close() })
			return e.Command("sh", "-c", `exec script -qefc "$1" /dev/null <>"$2"`, "sh",
				strings.Join([]string{"bash", script, e.Bin, "--stall-timeout=5m", ref, dir},
					" "), fifo), keys
		}

		p, keys := begin()
		harness.Eventually(t, time.Minute, "two processes in one group on a terminal", func() bool {
			all := idsOf(t, e)
			return len(all) == 2 && all[0].group == all[0].pid && all[1].group == all[0].pid &&
				all[1].terminal == all[0].terminal && all[0].terminal != 0 && ignoresSIGINT(all[1].pid)
		})
		keys.WriteString("\x03")
		if r := p.Wait(harness.Limit); r.Code != 130 {
			t.Errorf("after Ctrl-C: %v", r)
		}
		harness.Eventually(t, time.Minute, "end of both", func() bool {
			return len(harness.Pids(e.Bin)) == 0
		})
		if lines := harness.MountLines(t, dir); lines != nil {
			t.Fatalf("mounted after Ctrl-C: %v", lines)
		}

		p, keys = begin()
		harness.Eventually(t, time.Minute, "two processes", func() bool {
			all := idsOf(t, e)
			return len(all) == 2 && ignoresSIGINT(all[1].pid)
		})
		keys.WriteString("\x1a")
		harness.Eventually(t, time.Minute, "the stop of the command", func() bool {
			return strings.Contains(p.Stdout(), "stopped")
		})
		stall.Release()
		harness.Eventually(t, time.Minute, "a mount in a session of its own", func() bool {
			return slices.ContainsFunc(idsOf(t, e),
				func(p ids) bool { return p == ids{p.pid, p.pid, p.pid, 0} })
		})
		keys.WriteString("\n")
		if r := p.Wait(harness.Limit); r.Code != 0 {
			t.Errorf("after Ctrl-Z: %v", r)
		}
		m := e.Mounted(ref, dir)
		m.Compare("world/fs", harness.Want(t, "minimal"))
		e.Sh(`kill -INT "$1"`, fmt.Sprint(m.PID)).Want(t, 0)
		m.Gone()
	})
}

// ignoresSIGINT tells whether a process ignores SIGINT.
func ignoresSIGINT(pid int) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, mask, _ := strings.Cut(string(status), "SigIgn:\t")
	var bits uint64
	fmt.Sscanf(mask, "%x", &bits)
	return bits&(1<<(2-1)) != 0
}
