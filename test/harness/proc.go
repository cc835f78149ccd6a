package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Pids lists the processes that run the file exe.
func Pids(exe string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, d := range entries {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && path == exe {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Cmdline is a process's arguments.
func Cmdline(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// stat gives the fields of /proc/PID/stat behind the command's name; nil when there is no such process.
func stat(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	text := string(data)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
}

// State is a process's state letter ("R", "S", "D", "Z"), "" when it is gone.
func State(pid int) string {
	if f := stat(pid); len(f) > 0 {
		return f[0]
	}
	return ""
}

// Alive tells whether a process runs; a zombie does not.
func Alive(pid int) bool {
	s := State(pid)
	return s != "" && s != "Z" && s != "X"
}

// status reads a line in kB of /proc/PID/status, in bytes.
func status(t testing.TB, pid int, key string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("process %d has no %s", pid, key)
	return 0
}

// RSS is a process's memory now, in bytes.
func RSS(t testing.TB, pid int) int64 { t.Helper(); return status(t, pid, "VmRSS") }

// Peak is the highest RSS so far, in bytes.
func Peak(t testing.TB, pid int) int64 { t.Helper(); return status(t, pid, "VmHWM") }

// FDs lists what a process's descriptors point to.
func FDs(t testing.TB, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, d := range entries {
		if to, err := os.Readlink(dir + "/" + d.Name()); err == nil {
			list = append(list, to)
		}
	}
	return list
}

// DropCaches empties the kernel's page, dentry and inode caches, so that the next look asks the daemon.
func DropCaches(t testing.TB) {
	t.Helper()
	syscall.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		t.Fatal(err)
	}
}

// BytesRead returns how many bytes a process has read so far, from whatever.
func BytesRead(t testing.TB, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	if _, err := fmt.Sscanf(string(data), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Eventually waits until ok and fails the test after limit.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
