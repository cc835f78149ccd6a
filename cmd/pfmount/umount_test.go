package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestRunning holds that an ended process counts as gone although nobody waited for it.
func TestRunning(t *testing.T) {
	if !running(os.Getpid()) {
		t.Error("this process does not run")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	for end := time.Now().Add(10 * time.Second); running(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a zombie counts as running")
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if running(pid) {
		t.Error("a process that is gone counts as running")
	}
}
