package mounts

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process that asks for Probe.
func TestMain(m *testing.M) {
	if os.Getenv(ProbeVar) != "" {
		os.Exit(RunProbe())
	}
	os.Exit(m.Run())
}

// TestProbe: a mount that answers, one that does not, one whose process is dead, and one that is not
// what is seen at its place.
func TestProbe(t *testing.T) {
	t.Parallel()
	proc, err := At("/proc")
	if err != nil || proc == nil {
		t.Fatalf("/proc: %v, %v", proc, err)
	}
	if got := Probe(proc); got != Alive {
		t.Errorf("/proc: %v, want alive", got)
	}
	at := hold(t, t.TempDir())
	a, err := Attach(at, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Detach(&a.Mount, true) })
	a.Root.Close()
	if got := Probe(&a.Mount); got != Hung {
		t.Errorf("not served: %v, want hung", got)
	}
	unix.Close(a.FD)
	if got := Probe(&a.Mount); got != Stale {
		t.Errorf("its process is gone: %v, want stale", got)
	}
	other := a.Mount
	other.ID = -1
	if got := Probe(&other); got != Hung {
		t.Errorf("another mount is seen: %v, want hung", got)
	}
	other.Point = "/none"
	if got := Probe(&other); got != Hung {
		t.Errorf("no such place: %v, want hung", got)
	}
}
