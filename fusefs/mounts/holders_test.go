package mounts

import "testing"

func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		path, dir string
		want      bool
	}{
		{"/a/b", "/a", true}, {"/a", "/a", true}, {"/a", "/a/b", false}, {"/ab", "/a", false},
		{"/a/..b", "/a", true}, {"/", "/a", false}, {"/x", "/", true},
	} {
		if got := Within(tt.path, tt.dir); got != tt.want {
			t.Errorf("Within(%q, %q): got %v", tt.path, tt.dir, got)
		}
	}
}
