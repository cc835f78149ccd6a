package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// manager plays the service manager's end of NOTIFY_SOCKET.
type manager struct {
	t   *testing.T
	mu  sync.Mutex // guards all
	all []string   // the messages so far
}

// listen opens a socket at address; "@" makes it an abstract one.
func listen(t *testing.T, e *harness.Env, address string) *manager {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(address, "@") {
		if err := os.Chmod(address, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	m := &manager{t: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 8192)
		for {
			n, err := l.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.all = append(m.all, string(buf[:n]))
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done; os.Remove(address) })
	e.Set("NOTIFY_SOCKET", address)
	return m
}

// count is how many messages hold a line that starts with prefix.
func (m *manager) count(prefix string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, msg := range m.all {
		if strings.Contains("\n"+msg, "\n"+prefix) {
			n++
		}
	}
	return n
}

func (m *manager) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%q", m.all)
}

// await waits for n messages with prefix.
func (m *manager) await(prefix string, n int) {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for m.count(prefix) < n {
		if time.Now().After(deadline) {
			m.t.Fatalf("no %d messages of %q: %v", n, prefix, m)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestNotify: ready when the mount can be read, a status line that follows, the watchdog, and the
// end; to sockets of either kind.
func TestNotify(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"path", "abstract"} {
		t.Run(kind, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				ref, dir := e.Push(harness.Fixture(t, "basic")), e.MountDir()
				address := e.Path("notify")
				if kind == "abstract" {
					address = "@" + filepath.Base(e.Dir)
				}
				m := listen(t, e, address)
				e.Set("WATCHDOG_USEC", "400000")
				p := e.Start("-f", ref, dir)
				m.await("READY=1", 1)
				// A script that waited for the manager reads at once.
				mount := e.Mounted(ref, dir)
				mount.Compare("world/fs", harness.Want(t, "basic"))
				if m.count("STATUS="+ref+": fetched ") == 0 || m.count("MAINPID=") != 0 {
					t.Errorf("ready: %v", m)
				}
				m.await("STATUS=", 2) // what was just read
				m.await("WATCHDOG=1", 3)
				e.Sh(`kill -STOP "$1"`, fmt.Sprint(p.Cmd.Process.Pid)).Want(t, 0)
				harness.Eventually(t, time.Minute, "stop",
					func() bool { return harness.State(p.Cmd.Process.Pid) == "T" })
				before := m.count("WATCHDOG=1")
				time.Sleep(time.Second) // five heartbeats, were it alive
				if n := m.count("WATCHDOG=1"); n > before+1 {
					t.Errorf("%d heartbeats of a stopped process", n-before)
				}
				p.Signal(syscall.SIGCONT)
				m.await("WATCHDOG=1", before+3)
				// What is still fetched ahead may tell of itself; then nothing changes.
				harness.Eventually(t, harness.Limit, "end of status lines", func() bool {
					before := m.count("STATUS=")
					time.Sleep(4 * time.Second)
					return m.count("STATUS=") == before
				})
				p.Signal(syscall.SIGTERM)
				p.Wait(harness.Limit).Want(t, 0)
				m.await("STOPPING=1", 1)
				if m.count("READY=1") != 1 || m.count("STOPPING=1") != 1 {
					t.Errorf("all: %v", m)
				}
				mount.Gone()
			})
		})
	}
}

// TestNotifyBackground: as the service itself, the background process takes the service's place
// before the command returns; in the background of another service it keeps silent.
func TestNotifyBackground(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "minimal"))
	m := listen(t, e, e.Path("notify"))
	dir := e.MountDir()
	e.Sh(`export SYSTEMD_EXEC_PID=$$ WATCHDOG_PID=$$ WATCHDOG_USEC=400000; exec "$@"`, e.Bin, ref,
		dir).Want(t, 0)
	mount := e.Mounted(ref, dir)
	if m.count("READY=1") != 1 || m.count(fmt.Sprintf("MAINPID=%d", mount.PID)) != 1 {
		t.Errorf("the command returned and the manager knows %v; the process is %d", m, mount.PID)
	}
	m.await("WATCHDOG=1", 2)
	mount.Unmount()
	m.await("STOPPING=1", 1)

	silent := listen(t, e, e.Path("other"))
	e.Set("SYSTEMD_EXEC_PID", "1")
	e.Mount(ref).Unmount()
	e.Unset("SYSTEMD_EXEC_PID")
	e.Mount(ref).Unmount()
	e.Run("cat", ref, "model/base").Want(t, 0)
	if len(silent.all) != 0 {
		t.Errorf("somebody else's manager was told %v", silent)
	}
}

// TestNotifyFailed: a mount that cannot be is never ready, and a manager that is gone stops no mount.
func TestNotifyFailed(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "minimal"))
	m := listen(t, e, e.Path("notify"))
	e.Run("-f", e.Registry().Ref("team/app", "none"), e.MountDir()).Want(t, 5, "not found")
	if n := m.count("READY=1"); n != 0 {
		t.Errorf("ready: %v", m)
	}
	e.Set("NOTIFY_SOCKET", e.Path("nobody"))
	dir := e.MountDir()
	p := e.Start("-f", ref, dir)
	harness.Eventually(t, time.Minute, "the mount",
		func() bool { return strings.Contains(p.Stderr(), "msg=mounted") })
	if !strings.Contains(p.Stderr(), "NOTIFY_SOCKET") {
		t.Errorf("no word of the manager: %v", p.Stderr())
	}
	p.Signal(syscall.SIGTERM)
	p.Wait(harness.Limit).Want(t, 0)
}

// TestWatchdogAsks: the heartbeat is the mount's answer, not a ticker's. A mount that hangs is
// played by another one, of a stopped process, that has come to stand in the first one's place.
func TestWatchdogAsks(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Build(t,
		imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("f", "0644", imgbuild.Text("x"))}}))
	base := e.Tmpfs("private", 1<<20)
	e.Sh(`mount --make-private "$1" && mkdir "$1"/here "$1"/there`, base).Want(t, 0)
	here, there := base+"/here", base+"/there"
	m := listen(t, e, e.Path("notify"))
	e.Set("WATCHDOG_USEC", "200000")
	first := e.Start("-f", ref, here)
	m.await("WATCHDOG=1", 2)
	e.Unset("NOTIFY_SOCKET")
	e.Sh(`mount --move "$1" "$2"`, here, there).Want(t, 0)
	second := e.Start("-f", ref, here)
	harness.Eventually(t, time.Minute, "the second mount",
		func() bool { return strings.Contains(second.Stderr(), "msg=mounted") })
	second.Signal(syscall.SIGSTOP)
	harness.Eventually(t, time.Minute, "stop",
		func() bool { return harness.State(second.Cmd.Process.Pid) == "T" })
	before := m.count("WATCHDOG=1")
	time.Sleep(time.Second)
	if n := m.count("WATCHDOG=1"); n > before+1 {
		t.Errorf("%d heartbeats while the mount hangs", n-before)
	}
	second.Signal(syscall.SIGCONT)
	m.await("WATCHDOG=1", before+3)
	second.Signal(syscall.SIGTERM)
	second.Wait(harness.Limit).Want(t, 0)
	e.Sh(`mount --move "$1" "$2"`, there, here).Want(t, 0)
	first.Signal(syscall.SIGTERM)
	first.Wait(harness.Limit).Want(t, 0)
}
