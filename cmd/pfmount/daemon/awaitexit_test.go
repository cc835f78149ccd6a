package daemon

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestAwaitExit holds that a process that ended counts as gone although its
// parent has not looked yet, and a living one does not.
func TestAwaitExit(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !AwaitExit(cmd.Process.Pid, 20*time.Second) {
		t.Error("a zombie counts as running")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if AwaitExit(os.Getpid(), 10*time.Millisecond) {
		t.Error("this process counts as gone")
	}
	if !AwaitExit(0, 0) {
		t.Error("no process to wait for, and waited")
	}
}
