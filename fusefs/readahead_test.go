package fusefs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRaiseReadAhead(t *testing.T) {
	for _, test := range []struct {
		before, after string
		ok            bool
	}{
		{"128\n", "256\n", true},
		{"0\n", "256\n", true},
		{"256\n", "256\n", true},
		{"4096\n", "4096\n", true},
		{"much\n", "much\n", false},
	} {
		name := filepath.Join(t.TempDir(), "read_ahead_kb")
		if err := os.WriteFile(name, []byte(test.before), 0o644); err != nil {
			t.Fatal(err)
		}
		err := raiseReadAhead(name)
		if got, _ := os.ReadFile(name); string(got) != test.after || (err == nil) != test.ok {
			t.Errorf("%q: %q, %v, want %q, success: %v", test.before, got, err, test.after, test.ok)
		}
	}
	if err := raiseReadAhead(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no such file is no error")
	}
}

// TestReadAhead mounts, where the kernel's setting can be written and where it cannot.
func TestReadAhead(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "x")), Options{})
	name := readAheadFile(m.Mounted().Dev)
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want := "256\n"
	if unix.Access(name, unix.W_OK) != nil { // a container's read-only /sys
		want = "128\n"
	}
	if string(got) != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}
