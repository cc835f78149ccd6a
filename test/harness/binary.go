package harness

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Race tells whether the binary is built with the race detector.
func Race() bool { return os.Getenv("PFMOUNT_RACE") != "" }

// built is the folder of this process's build, removed by Main.
var built string

// binary builds the product once for this process, or copies $PFMOUNT_BIN, into a folder that any user
// may read.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pfm-bin-")
	if err != nil {
		return "", err
	}
	built = dir
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "pfmount")
	if given := os.Getenv("PFMOUNT_BIN"); given != "" {
		return out, copyFile(out, given)
	}
	root, err := repo()
	if err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", out}
	cgo := "CGO_ENABLED=0"
	if Race() {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, "./cmd/pfmount")...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), cgo, "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of cmd/pfmount: %w\n%s", err, text)
	}
	return out, os.Chmod(out, 0o755)
})

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

// link gives the binary a name of its own in dir, so that an Env knows its own processes by /proc/PID/exe.
func link(t testing.TB, dir string) string {
	t.Helper()
	from, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "pfmount")
	if err := os.Link(from, to); err != nil {
		t.Fatal(err)
	}
	return to
}

// Main runs a package's tests and removes what they built; it is called by TestMain.
func Main(m *testing.M) int {
	// A shell starts what runs in its background, and nohup what it runs, with these ignored, and
	// an ignored signal is inherited: no reader of a mount could be interrupted. One that is caught
	// is none to the programs that this process starts.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	return code
}
