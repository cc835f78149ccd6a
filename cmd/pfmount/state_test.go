package main

import (
	"net"
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
	path := filepath.Join(t.TempDir(), "sock")
	listen := func() *stateServer {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		t.Cleanup(func() { l.Close() })
		file, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return &stateServer{path: path, file: file}
	}
	first := listen()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := listen()
	first.removeSocket()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the second socket is gone: %v", err)
	}
	second.removeSocket()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the second socket is still there: %v", err)
	}
}
