package daemon

import (
	"os"
	"testing"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// roleVar has this binary be another process of a test: its value says which.
const roleVar = "PFMOUNT_TEST_ROLE"

// TestMain lets the test binary be the guard, the process that probes and the background process,
// which start it as /proc/self/exe.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(GuardVar) != "":
		os.Exit(RunGuard())
	case os.Getenv(mounts.ProbeVar) != "":
		os.Exit(mounts.RunProbe())
	}
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(roles[role]())
	}
	os.Exit(m.Run())
}
