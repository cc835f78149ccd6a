package harness

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// MemoryLimit makes a memory cgroup (v1) of that many bytes and gives the prefix that runs a command in
// it. Page cache of the command's own reads and writes counts, as for users.
func MemoryLimit(t testing.TB, bytes int64) []string {
	t.Helper()
	dir, err := os.MkdirTemp("/sys/fs/cgroup/memory", "pfm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A process just ended may still be counted.
		for try := 0; os.Remove(dir) != nil; try++ {
			if try == 200 {
				t.Errorf("cgroup %s is still in use", dir)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	limit := filepath.Join(dir, "memory.limit_in_bytes")
	if err := os.WriteFile(limit, []byte(strconv.FormatInt(bytes, 10)), 0); err != nil {
		t.Fatal(err)
	}
	return []string{"sh", "-c", fmt.Sprintf(`echo $$ > %s/cgroup.procs && exec "$@"`, dir), "sh"}
}

// Net is a network namespace of its own, with loopback up and further addresses on it, so that hosts
// that are not loopback can be played on this machine.
type Net struct {
	t     testing.TB
	pid   int
	flags []string // of nsenter
}

// Network makes a network namespace whose lo has addresses such as "192.0.2.1".
func Network(t testing.TB, addresses ...string) *Net {
	t.Helper()
	return namespace(t, []string{"-n"}, addresses, "")
}

// Names is a network and a mount namespace: hosts maps addresses to the names they have there, and
// the folder etc, when not "", lies over /etc.
func Names(t testing.TB, hosts map[string]string, etc string) *Net {
	t.Helper()
	if etc == "" {
		etc = t.TempDir()
	}
	text := "127.0.0.1 localhost\n"
	for address, names := range hosts {
		text += address + " " + names + "\n"
	}
	if err := os.WriteFile(filepath.Join(etc, "hosts"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	script := "mount --make-rprivate / && mount -t overlay overlay -o lowerdir=" + etc + ":/etc /etc && "
	return namespace(t, []string{"-n", "-m"}, slices.Collect(maps.Keys(hosts)), script)
}

// namespace starts a process that holds namespaces; script goes before what it sets up.
func namespace(t testing.TB, flags, addresses []string, script string) *Net {
	t.Helper()
	script += "ip link set lo up"
	for _, a := range addresses {
		script += " && ip addr add " + a + "/32 dev lo"
	}
	cmd := exec.Command("unshare", append(slices.Clone(flags), "sh", "-c",
		script+" && echo ready && exec sleep infinity")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("network namespace: %q, %v", line, err)
	}
	return &Net{t, cmd.Process.Pid, flags}
}

// Prefix runs a command in the namespace.
func (n *Net) Prefix() []string {
	return append([]string{"nsenter", "-t", strconv.Itoa(n.pid)}, n.flags...)
}

// Listen opens a port in the namespace; it fits faultreg.Options.Listen.
func (n *Net) Listen(addr string) (net.Listener, error) {
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here, with its namespace
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", n.pid))
		if err != nil {
			done <- result{nil, err}
			return
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{nil, err}
			return
		}
		l, err := net.Listen("tcp", addr)
		done <- result{l, err}
	}()
	r := <-done
	return r.l, r.err
}
