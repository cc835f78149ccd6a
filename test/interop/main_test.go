package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// tools is where setup.sh keeps the reference tool.
func tools() (string, error) {
	cache, err := os.UserCacheDir()
	return filepath.Join(cache, "pfmount-test"), err
}

func TestMain(m *testing.M) {
	dir, err := tools()
	for _, name := range []string{"pf/bin/pf", "venv/bin/python"} {
		if err == nil {
			_, err = os.Stat(filepath.Join(dir, name))
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "the reference tool is not installed: %v; make interop installs it\n", err)
		os.Exit(1)
	}
	os.Exit(harness.Main(m))
}
