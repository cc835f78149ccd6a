package daemon

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// guarded is a process with a guarded mount on the first line's directory, which no one serves. It
// ends in order, or crashes, as the second line says.
func guarded() int {
	var dir, how string
	if _, err := fmt.Scanln(&dir); err != nil {
		return 2
	}
	at, err := mounts.Hold(dir)
	if err != nil {
		return 2
	}
	g, err := startGuard(guardConfig{
		Image: "reg/img:tag", PID: os.Getpid(), Mountpoint: []byte(dir),
		LogFile: []byte(dir + ".log"), Socket: []byte(dir + ".run/sock"), On: at.MountID(),
	})
	if err != nil {
		return 2
	}
	a, err := mounts.Attach(at, mounts.Options{Source: "reg/img:tag"})
	if err != nil {
		return 2
	}
	a.Root.Close()
	at.Close()
	if err := g.tell(&a.Mount); err != nil {
		return 2
	}
	fmt.Println("mounted")
	_, _ = fmt.Scanln(&how)
	if how == "crash" {
		go func() { panic("a bug") }()
		select {}
	}
	g.Close()
	return 0
}

// startGuarded starts a guarded mount; end ends its process.
func startGuarded(t *testing.T) (dir string, end func(how string)) {
	t.Helper()
	dir = t.TempDir() + "/m"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"=guarded")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	fmt.Fprintln(in, dir)
	if _, err := io.ReadFull(out, make([]byte, len("mounted\n"))); err != nil {
		t.Fatalf("not mounted: %v", err)
	}
	return dir, func(how string) {
		fmt.Fprintln(in, how)
		_ = cmd.Wait() // by its crash
	}
}

// logged waits until the log of the mount at dir holds the text, and returns the log.
func logged(t *testing.T, dir, text string) string {
	t.Helper()
	var log []byte
	eventually(t, text, func() bool {
		log, _ = os.ReadFile(dir + ".log")
		return strings.Contains(string(log), text)
	})
	return string(log)
}

func seen(t *testing.T, dir string) *mounts.Mount {
	t.Helper()
	m, err := mounts.At(dir)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestGuard: the guard of a process that crashes unmounts what that has left, and logs the crash.
func TestGuard(t *testing.T) {
	t.Parallel()
	dir, end := startGuarded(t)
	end("crash")
	log := logged(t, dir, "the process of a mount crashed: unmounted")
	for _, text := range []string{"panic: a bug", "guarded.func1", "reg/img:tag", dir} {
		if !strings.Contains(log, text) {
			t.Errorf("the log has no %q:\n%s", text, log)
		}
	}
	if m := seen(t, dir); m != nil {
		t.Errorf("left: %+v", m)
	}
}

// TestGuardOther: another mount at the place, which may have the same numbers, is left alone.
func TestGuardOther(t *testing.T) {
	t.Parallel()
	dir, end := startGuarded(t)
	if err := mounts.Detach(seen(t, dir), true); err != nil {
		t.Fatal(err)
	}
	at, err := mounts.Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	a, err := mounts.Attach(at, mounts.Options{Source: "reg/img:tag"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(a.FD)
	defer a.Root.Close()
	end("crash")
	logged(t, dir, "the process of a mount crashed")
	if m := seen(t, dir); m == nil || !m.Same(&a.Mount) {
		t.Errorf("the other mount is gone: %+v", m)
	}
}

// TestGuardInOrder: the guard of a process that ends in order does nothing.
func TestGuardInOrder(t *testing.T) {
	t.Parallel()
	dir, end := startGuarded(t)
	end("in order")
	if m := seen(t, dir); m == nil {
		t.Error("the mount is gone")
	}
	if log, err := os.ReadFile(dir + ".log"); err == nil {
		t.Errorf("logged: %q", log)
	}
}

// TestGuardInput: what is no configuration is an error, and no report is no crash.
func TestGuardInput(t *testing.T) {
	t.Parallel()
	for input, good := range map[string]bool{"": false, "rubbish\n": false, `{"PID":-1}` + "\n": true} {
		if err := runGuard(strings.NewReader(input)); (err == nil) != good {
			t.Errorf("%q: %v", input, err)
		}
	}
}
