package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestKilledWhileFailing kills an ordinary user's command at each system call by which a failing
// fill touches its partial file. The next command fills the blob, and cache clear leaves no file.
func TestKilledWhileFailing(t *testing.T) {
	t.Parallel()
	e := harness.New(t, harness.User)
	e.Crash()
	const path = "world/fs/big"
	img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{
		imgbuild.File("big", "0644", imgbuild.Noise{Seed: 1, Len: 9 << 20}), // none that memory takes
	}})
	ref := e.Push(img)
	e.Run("warm", ref, path).Want(t, 0)
	name := strings.TrimPrefix(img.Digest(path), "sha256:")
	tmp := filepath.Join(e.CacheDir(), "tmp")
	partial := filepath.Join(tmp, name)
	kills := map[string]int{}
	strace := []string{
		"strace", "-f", "-qq", "-o", "/dev/null", "-P", tmp, "-P", partial, "-P", partial + " (deleted)",
	}
	for _, call := range []string{
		"openat", "flock", "newfstatat", "fstat", "ftruncate", "pwrite64", "fchmod", "unlinkat", "close",
	} {
		for when, killed := 1, true; killed; when++ {
			for _, next := range []string{"clear", "warm"} {
				e.Run("cache", "clear").Want(t, 0)
				lost := faultreg.Match{Ref: img.WireOf(path)}
				rule := e.Registry().On(lost, faultreg.Answer(404, ""))
				e.Prefix = append(strace, "-e", "trace="+call,
					"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, when))
				r := e.Run("warm", ref, path)
				e.Prefix = nil
				rule.Off()
				if killed = r.Signal == syscall.SIGKILL || r.Code == 128+9; !killed {
					r.Want(t, 4)
					break
				}
				kills[call]++
				if next == "clear" {
					e.Run("cache", "clear").Want(t, 0)
				} else {
					e.Run("warm", ref, path).Want(t, 0)
				}
				a, err := Audit(e.CacheDir())
				if err != nil || a.Partial > 0 || len(a.Torn) > 0 || (next == "warm") != (a.Blobs > 0) {
					t.Errorf("killed at %s %d, then %s: %+v, %v", call, when, next, a, err)
				}
				_, err = os.Stat(filepath.Join(e.CacheDir(), "blobs", name[:2], name))
				if (err == nil) != (next == "warm") {
					t.Errorf("killed at %s %d, then %s: %v", call, when, next, err)
				}
			}
		}
	}
	t.Logf("kills: %v", kills)
	for _, call := range []string{"openat", "ftruncate", "fchmod", "unlinkat"} {
		if kills[call] == 0 {
			t.Errorf("none was killed at %s", call)
		}
	}
}
