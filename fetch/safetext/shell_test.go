package safetext

import "testing"

func TestShell(t *testing.T) {
	for in, want := range map[string]string{"/mnt/a-b.c": "/mnt/a-b.c", "/a b": "'/a b'",
		"/it's": `'/it'\''s'`, "/$x": "'/$x'"} {
		if got := Shell(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
