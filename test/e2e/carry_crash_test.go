package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
)

// ext4Shutdown makes an ext4 behave as if the power had gone: what was not synced is lost (EXT4_IOC_SHUTDOWN, with
// EXT4_GOING_FLAGS_NOLOGFLUSH).
// https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/ext4.h
const (
	ext4Shutdown   = 0x8004587D
	ext4NoLogFlush = 2
)

// powerCut cuts the power of a loop file system of the Env's and mounts it again.
func powerCut(t *testing.T, e *harness.Env, name string) {
	t.Helper()
	dir := e.Path(name)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, ext4NoLogFlush)
	f.Close()
	if err != nil {
		t.Fatalf("shutdown of %s: %v", dir, err)
	}
	for _, argv := range [][]string{{"umount", dir}, {"mount", "-o", "loop", e.Path(filepath.Base(name) + ".img"), dir}} {
		if text, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, text)
		}
	}
}

// TestPullSurvivesPowerCut cuts the power right after a pull: what the destination names is whole.
func TestPullSurvivesPowerCut(t *testing.T) {
	t.Parallel()
	for _, dest := range []string{"file://", "oci-layout:", "store:"} {
		t.Run(strings.Trim(dest, ":/"), func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			img := harness.Fixture(t, "many")
			disk := e.LoopExt4("disk", 64<<20)
			e.Set("PF_STORE", disk+"/s")
			place := dest + disk + "/s"
			if dest == "store:" {
				place = dest
			}
			there := strings.TrimSpace(e.Run("pull", "-q", e.Push(img), place).Want(t, 0).Stdout)
			powerCut(t, e, "disk")
			e.Run("exists", there).Want(t, 0)
			e.Run("verify", there).Want(t, 0)
		})
	}
}
