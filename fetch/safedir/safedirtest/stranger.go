// Package safedirtest makes files of another user for unit tests.
package safedirtest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Stranger is a user ID that neither root nor the user of the tests has.
const Stranger = 12345

// CanChown reports whether files can be given to Stranger: by root, outside a namespace of one
// user.
func CanChown(t testing.TB) bool {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return os.Chown(name, Stranger, Stranger) == nil
}

// Link makes a symlink that Stranger owns to a folder of the process's user.
func Link(t testing.TB) (link, folder string) {
	t.Helper()
	dir := t.TempDir()
	link, folder = filepath.Join(dir, "link"), filepath.Join(dir, "folder")
	err := errors.Join(os.Mkdir(folder, 0o700), os.Symlink(folder, link),
		os.Lchown(link, Stranger, Stranger))
	if err != nil {
		t.Fatal(err)
	}
	return link, folder
}
