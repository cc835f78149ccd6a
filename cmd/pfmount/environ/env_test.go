package environ

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/safedir/safedirtest"
)

// TestForeignFolders: root does not take folders of other users from its environment.
func TestForeignFolders(t *testing.T) {
	if !safedirtest.CanChown(t) {
		return
	}
	link, folder := safedirtest.Link(t)
	other := t.TempDir()
	if err := os.Chown(other, safedirtest.Stranger, safedirtest.Stranger); err != nil {
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
