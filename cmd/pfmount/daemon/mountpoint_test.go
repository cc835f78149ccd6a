package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

func TestHoldFree(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	link, dangling := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "dangling")
	if err := errors.Join(os.Symlink(empty, link), os.Symlink("none", dangling)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ dir, want string }{
		{empty, ""},
		{dir, `not empty (it holds "file")`},
		{file, "not a folder"},
		{filepath.Join(dir, "absent"), "no such file"},
		{dangling, "no such file"},
		{link, "moved meanwhile"}, // the caller has resolved links before
	} {
		at, err := holdFree(tt.dir)
		if err == nil {
			at.Close()
		}
		if tt.want == "" && err != nil || tt.want != "" &&
			(!errors.Is(err, fault.ErrMount) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.dir, err, tt.want)
		}
	}
}
