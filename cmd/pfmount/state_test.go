package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestStateDirBy(t *testing.T) {
	none := 1 << 30 // no /run/user of such a user
	for _, tt := range []struct {
		uid  int
		env  string
		want string
	}{
		{none, "XDG_RUNTIME_DIR=/r\x00TMPDIR=/t\x00", "/r/pfmount"},
		{0, "XDG_RUNTIME_DIR=/r\x00", "/r/pfmount"},
		{0, "", "/run/pfmount"},
		{0, "XDG_RUNTIME_DIR=relative\x00", "/run/pfmount"},
		{none, "A=b\x00TMPDIR=/t\x00", "/t/pfmount-1073741824"},
		{none, "NOT_XDG_RUNTIME_DIR=/r\x00XDG_RUNTIME_DIR\x00", "/tmp/pfmount-1073741824"},
	} {
		if got := stateDirBy(tt.uid, environ([]byte(tt.env))); got != tt.want {
			t.Errorf("%d, %q: got %q, want %q", tt.uid, tt.env, got, tt.want)
		}
	}
}

// TestRemoveSocket has a second mount at the same place put its socket where the first one's was: the end of the first
// leaves it alone.
func TestRemoveSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "sock")
	listen := func() *stateServer {
		s, l, err := listenState(filepath.Dir(path), filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); s.dir.Close() })
		return s
	}
	first, second := listen(), listen()
	first.removeSocket()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the second socket is gone: %v", err)
	}
	second.removeSocket()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the second socket is still there: %v", err)
	}
}
