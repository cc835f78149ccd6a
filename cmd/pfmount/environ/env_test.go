package environ

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// canChown says whether there are other users to give files to: for root, outside a namespace of
// one user.
func canChown(t *testing.T) bool {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return os.Chown(name, 12345, 12345) == nil
}

// strangersLink makes a symlink of another user's to a folder of root's.
func strangersLink(t *testing.T) (link, folder string) {
	t.Helper()
	dir := t.TempDir()
	link, folder = filepath.Join(dir, "link"), filepath.Join(dir, "folder")
	err := errors.Join(os.Mkdir(folder, 0o700), os.Symlink(folder, link),
		os.Lchown(link, 12345, 12345))
	if err != nil {
		t.Fatal(err)
	}
	return link, folder
}

// TestForeignFolders: root does not take folders of other users from its environment.
func TestForeignFolders(t *testing.T) {
	if !canChown(t) {
		return
	}
	link, folder := strangersLink(t)
	other := t.TempDir()
	if err := os.Chown(other, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	for _, name := range folderVars {
		t.Setenv(name, folder)
	}
	t.Setenv("HOME", other)
	t.Setenv("XDG_STATE_HOME", filepath.Join(link, "state"))
	t.Setenv("XDG_CACHE_HOME", filepath.Join(other, "not", "made"))
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(folder, "not", "made"))
	var said bytes.Buffer
	DropForeignFolders(&said)
	for _, name := range folderVars {
		_, set := os.LookupEnv(name)
		foreign := name == "HOME" || name == "XDG_STATE_HOME" || name == "XDG_CACHE_HOME"
		if set == foreign || strings.Contains(said.String(), name) != foreign {
			t.Errorf("%s: set %v; said %q", name, set, said.String())
		}
	}
}
