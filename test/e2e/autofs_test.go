package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// automountLimit bounds an access that has to make a mount; it is far above what any takes.
const automountLimit = 60 * time.Second

// automount is automount(8) with maps of the test's own, in a mount namespace of its own.
type automount struct {
	*harness.Env
	process *harness.Process
}

// startAutomount starts automount with the lines of an indirect map on e.Path("auto") and of a
// direct map, in which DIR stands for the Env's folder. Idle mounts expire after some seconds.
func startAutomount(t *testing.T, e *harness.Env, expire int, indirect, direct string) *automount {
	t.Helper()
	fill := strings.NewReplacer("DIR", e.Dir)
	e.WriteFile("indirect", []byte(fill.Replace(indirect)), 0o644)
	e.WriteFile("direct", []byte(fill.Replace(direct)), 0o644)
	master := "DIR/auto file:DIR/indirect --timeout=%d\n/- file:DIR/direct --timeout=%[1]d\n"
	e.WriteFile("master", []byte(fill.Replace(fmt.Sprintf(master, expire))), 0o644)
	e.MakeDir("auto")
	a := &automount{Env: e}
	a.process = e.Command("automount", "--foreground", "--dont-check-daemon",
		"--pid-file", e.Path("pid"), e.Path("master"))
	pid := fmt.Sprint(a.process.Cmd.Process.Pid)
	t.Cleanup(func() { a.stop(t) })
	harness.Eventually(t, time.Minute, "autofs mounts", func() bool {
		if !a.process.Running() {
			t.Fatalf("automount ended: %s", a.process.Stderr())
		}
		mounts, _ := os.ReadFile("/proc/" + pid + "/mountinfo")
		return strings.Contains(string(mounts), e.Path("auto")+" ") &&
			strings.Contains(string(mounts), e.Path("m/direct")+" ")
	})
	e.Prefix = []string{"nsenter", "-t", pid, "-m", "env"}
	return a
}

// stop ends automount, which unmounts all. Mounts that a killed one leaves end with the namespace.
func (a *automount) stop(t *testing.T) {
	a.process.Signal(15)
	deadline := time.Now().Add(automountLimit)
	for a.process.Running() && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if a.process.Running() {
		t.Error("automount does not end")
	}
	if t.Failed() {
		t.Logf("automount: %s", a.process.Stderr())
	}
	a.process.Kill()
	a.Prefix = nil
}

// access runs a script, for a bounded time.
func (a *automount) access(script string, args ...string) harness.Result {
	argv := []string{"timeout", "-k", "1", fmt.Sprint(automountLimit.Seconds()),
		"bash", "-euo", "pipefail", "-c", script, "bash"}
	return a.Command(append(argv, args...)...).Wait(harness.Limit)
}

// mounted gives the directories of the Env on which pfmount stands.
func (a *automount) mounted() string {
	return a.access(`awk -v d="$1/" 'index($5, d) == 1 && / fuse\.pfmount / {
	print substr($5, length(d)+1)}' /proc/self/mountinfo`, a.Dir).Stdout
}

// TestAutofs: below automount(8) the first access mounts, also when it is many at once; what is
// unmounted is mounted again; what cannot be mounted is an error.
func TestAutofs(t *testing.T) {
	t.Parallel()
	e := installed(t, "", "mount -t tmpfs none /run")
	const want = "it is there\n"
	known := imgbuild.File("known", "0644", imgbuild.Text(want))
	ref := e.Push(harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{known}}))
	e.MakeDir("m/direct")
	a := startAutomount(t, e, 600, fmt.Sprintf(`
one -fstype=fuse.pfmount,_netdev :%s
two -fstype=pfmount,subdir=world/fs :%[1]s
none -fstype=fuse.pfmount :%s
refused -fstype=fuse.pfmount,sugar :%[1]s
`, ref, e.Registry().Ref("team/app", "none")), fmt.Sprintf("DIR/m/direct -fstype=fuse.pfmount :%s\n", ref))
	if got := a.mounted(); got != "" {
		t.Fatalf("mounted before the first access: %s", got)
	}
	if r := a.access(`cat "$1/auto/one/world/fs/known"`, e.Dir).Want(t, 0); r.Stdout != want {
		t.Errorf("the first access: %v", r)
	}
	r := a.access(`for i in 1 2 3 4 5 6 7 8; do cat "$1/m/direct/world/fs/known" & p="${p-} $!"; done
for p in $p; do wait "$p"; done`, e.Dir).Want(t, 0)
	if r.Stdout != strings.Repeat(want, 8) {
		t.Errorf("eight at once: %v", r)
	}
	if r := a.access(`cat "$1/auto/two/known"`, e.Dir).Want(t, 0); r.Stdout != want {
		t.Errorf("the second type: %v", r)
	}
	for _, key := range []string{"none", "refused"} {
		if r := a.access(`ls "$1/auto/$2" || exit 9`, e.Dir, key); r.Code != 9 || r.Stdout != "" {
			t.Errorf("%s: %v", key, r)
		}
	}
	if got := a.mounted(); strings.Count(got, "\n") != 3 {
		t.Errorf("mounted: %s", got)
	}
	for _, script := range []string{`umount "$1"`, `"$2" umount "$1"`} {
		a.access(script+`; [ -z "$(awk -v d="$1" '$5 == d && / fuse/' /proc/self/mountinfo)" ]
test -s "$1/manifest.json"`, e.Path("m/direct"), e.Bin).Want(t, 0)
	}
	a.access(`umount "$1/auto/one" "$1/auto/two" "$1/m/direct"`, e.Dir).Want(t, 0)
	harness.Eventually(t, time.Minute, "end of all processes", func() bool {
		return len(harness.Pids(e.Bin)) == 0
	})
}

// TestAutofsExpires: an idle mount is unmounted, its processes end, and the next access mounts
// again.
func TestAutofsExpires(t *testing.T) {
	t.Parallel()
	e := installed(t, "", "mount -t tmpfs none /run")
	ref := e.Push(harness.Fixture(t, "basic"))
	e.MakeDir("m/direct")
	const line = " -fstype=fuse.pfmount :"
	a := startAutomount(t, e, 1, "one"+line+ref+"\n", "DIR/m/direct"+line+ref+"\n")
	for range 2 {
		a.access(`test -s "$1/auto/one/manifest.json"; test -s "$1/m/direct/manifest.json"`,
			e.Dir).Want(t, 0)
		harness.Eventually(t, time.Minute, "expiry", func() bool {
			return a.mounted() == "" && len(harness.Pids(e.Bin)) == 0
		})
	}
}
