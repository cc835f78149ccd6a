package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestKilledDaemon: what a killed daemon leaves, in each state, is cleared by umount and by a mount
// at the same place, without further words; where the mount is not in use, by plain tools too.
func TestKilledDaemon(t *testing.T) {
	t.Parallel()
	for _, use := range uses {
		for name, script := range map[string]string{
			"umount":         `"$1" umount "$2"`,
			"remount":        `"$1" --stall-timeout 5m "$3" "$2"`,
			"plain umount":   `umount "$2"`,
			"fusermount3 -u": `fusermount3 -u "$2"`,
		} {
			if use.busy && (name == "plain umount" || name == "fusermount3 -u") {
				continue
			}
			t.Run(use.name+"/"+name, func(t *testing.T) {
				harness.Each(t, func(t *testing.T, e *harness.Env) {
					u := lively(t, e)
					defer u.hold.Release()
					use.begin(t, u)
					u.Kill9()
					if _, err := u.ReadErr("world/fs/fast"); name != "remount" && err == nil {
						t.Log("cached reads go on")
					}
					if u.reader {
						if r := u.user.Wait(harness.Limit); r.Code != 1 || r.Stderr == "" {
							t.Errorf("the waiting reader ended by %v", r)
						}
						u.user = nil
					}
					r := e.Sh(script, e.Bin, u.Dir, u.Ref).Want(t, 0)
					if r.Took > endRoom*endBound {
						t.Errorf("it took %v", r.Took)
					}
					if u.user != nil {
						defer u.user.Kill()
					}
					if name == "remount" {
						m := e.Mounted(u.Ref, u.Dir)
						if got := string(m.Read("world/fs/fast")); got != "fast\n" {
							t.Errorf("after the remount: %q", got)
						}
						m.Unmount()
					}
					if lines := harness.MountLines(t, u.Dir); len(lines) > 0 {
						t.Errorf("left: %v", lines)
					}
					if files, _ := filepath.Glob(e.Path("run/pfmount/*")); len(files) > 0 &&
						strings.Contains(script, `"$1"`) {
						t.Errorf("sockets left: %v", files)
					}
				})
			})
		}
	}
}

// TestLiveIsKept: neither a mount nor umount removes what lives: ours, of other kinds, or one that hangs.
func TestLiveIsKept(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		u := lively(t, e)
		defer u.hold.Release()
		u.read(t)
		refused(t, e, 6, []string{"already mounted"}, u.Ref, u.Dir)
		if err := syscall.Kill(u.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, time.Minute, "the stop", func() bool { return harness.State(u.PID) == "T" })
		refused(t, e, 6, []string{"does not answer"}, "umount", u.Dir)
		refused(t, e, 6, []string{"does not answer"}, u.Ref, u.Dir)
		if err := syscall.Kill(u.PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		u.hold.Release()
		if r := u.user.Wait(harness.Limit).Want(t, 0); harness.SHA256([]byte(r.Stdout)) != u.sum {
			t.Errorf("the reader got %d wrong bytes", len(r.Stdout))
		}
		other := e.Tmpfs("other", 1<<20)
		e.WriteFile("other/mine", []byte("mine"), 0o644)
		refused(t, e, 6, []string{"not a mount of pfmount"}, "umount", other)
		refused(t, e, 6, []string{"not empty"}, u.Ref, other)
		u.Unmount()
	})
}

// bugs are panics that the crash build has: in the call of a reader, and in the goroutine of a fill.
var bugs = []struct{ file, line, add string }{
	{"fusefs/tree.go", "	target, ok := f.ix.Link(f.row(in.NodeId))\n",
		"	if target == \"bug in a call\" {\n		panic(target)\n	}\n"},
	{"fetch/image.go", "func (im *Image) Blob(ctx context.Context, d pfimg.Digest, size int64, w artifact.Sink) error {\n", "	if size == 4242 {\n		panic(\"bug in a fill\")\n	}\n"},
}

// buggy builds the binary with bugs, by way of an overlay: the product has no hook for it.
var buggy = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "pfm-bug-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	replace := map[string]string{}
	for i, b := range bugs {
		text, err := os.ReadFile(filepath.Join(root, b.file))
		if err != nil {
			return nil, err
		}
		changed := strings.Replace(string(text), b.line, b.line+b.add, 1)
		if changed == string(text) {
			return nil, fmt.Errorf("%s has no line %q", b.file, b.line)
		}
		replace[filepath.Join(root, b.file)] = filepath.Join(dir, fmt.Sprint(i, ".go"))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".go")), []byte(changed), 0o600); err != nil {
			return nil, err
		}
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o",
		filepath.Join(dir, "pfmount"), "./cmd/pfmount")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build with bugs: %w\n%s", err, text)
	}
	return os.ReadFile(filepath.Join(dir, "pfmount"))
})

// TestCrash: a panic in a call, in a fill, or anywhere, a fatal signal: the stack is in the log,
// readers get an error, and nothing is left, busy or not.
func TestCrash(t *testing.T) {
	t.Parallel()
	program, err := buggy()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ script, stack string }{
		"in a call": {`readlink "$2"/world/fs/link`, "(*FS).Readlink"},
		"in a fill": {`cat "$2"/world/fs/bad`, "(*Image).Blob"},
		"SIGABRT":   {`kill -ABRT "$1"`, "SIGABRT"},
		"SIGQUIT":   {`kill -QUIT "$1"`, "SIGQUIT"},
	} {
		for _, foreground := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, foreground %v", name, foreground), func(t *testing.T) {
				harness.Each(t, func(t *testing.T, e *harness.Env) {
					e.Bin = e.WriteFile("pfmount-bug", program, 0o755)
					spec := lifeSpec()
					spec.Entries = append(spec.Entries,
						imgbuild.Symlink("link", "bug in a call"), imgbuild.File("bad", "0644",
							imgbuild.Noise{Seed: 9, Len: 4242}))
					img := harness.Build(t, spec)
					ref, dir := e.Push(img), e.MountDir()
					var p *harness.Process
					if foreground {
						p = e.Start("-f", ref, dir)
						harness.Eventually(t, time.Minute, "the mount",
							func() bool { return len(harness.MountLines(t, dir)) > 0 })
					} else {
						e.Run(ref, dir).Want(t, 0)
					}
					u := &used{Mount: e.Mounted(ref, dir), env: e, hold: faultreg.NewHold()}
					u.Read("world/fs/fast")
					u.keep(t, `cd "$1"`)
					e.Crash() // a fill that panics leaves its partial file
					begin := time.Now()
					e.Sh(tt.script+` || :`, fmt.Sprint(u.PID), dir)
					harness.Eventually(t, endRoom*endBound, "the end of process and mount", func() bool {
						return len(harness.MountLines(t, dir)) == 0 && len(harness.Pids(e.Bin)) == 0
					})
					t.Logf("gone after %.2f of the bound", time.Since(begin).Seconds()/endBound.Seconds())
					u.user.Kill()
					said := e.Logs()
					if foreground {
						said = p.Wait(harness.Limit).Stderr
					}
					if !strings.Contains(said, tt.stack) ||
						!strings.Contains(said, "crashed: unmounted") || strings.Count(said, tt.stack) > 3 {
						t.Errorf("what is said of the crash:\n%s", said)
					}
					if files, _ := filepath.Glob(e.Path("run/pfmount/*")); len(files) > 0 {
						t.Errorf("sockets left: %v", files)
					}
				})
			})
		}
	}
}
