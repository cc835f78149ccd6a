package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestReady: a hundred times, what comes after the command in a script sees the mount, and what
// comes after the unmount does not.
func TestReady(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, dir := e.Push(harness.Build(t,
			imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("known", "0644",
				imgbuild.Text("it is there\n"))}})), e.MountDir()
		r := e.Sh(`for i in $(seq 100); do
  "$1" "$2" "$3" && cat "$3/world/fs/known" && fusermount3 -u "$3"
  [ ! -e "$3/world" ]
done`, e.Bin, ref, dir).Want(t, 0)
		if want := strings.Repeat("it is there\n", 100); r.Stdout != want {
			t.Errorf("%d lines were read: %v", strings.Count(r.Stdout, "\n"), r)
		}
	})
}

// TestFailedStart: a mount that cannot be says so before the command ends, with its exit code,
// and leaves nothing.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ref  func(t *testing.T, e *harness.Env) string
		code int
		want string
	}{
		"bad signature": {func(t *testing.T, e *harness.Env) string {
			img := harness.Fixture(t, "minimal")
			img.SetManifest([]byte(strings.Replace(string(img.Manifest), "agent", "agant", 1)), "")
			img.SetSignature(imgbuild.Sign(harness.Fixture(t, "minimal").Manifest, ""))
			return e.Serve(img)
		}, 4, "signature"},
		"missing tag": {func(t *testing.T, e *harness.Env) string {
			e.Push(harness.Fixture(t, "minimal"))
			return e.Registry().Ref("team/app", "none")
		}, 5, "not found"},
		"denied": {func(t *testing.T, e *harness.Env) string {
			ref := e.Push(harness.Fixture(t, "minimal"))
			e.Registry().On(faultreg.Match{},
				faultreg.Answer(403, `{"errors":[{"code":"DENIED","message":"no access"}]}`,
					"Content-Type", "application/json"))
			return ref
		}, 5, "403"},
		"no registry": {func(t *testing.T, e *harness.Env) string {
			ref := e.Push(harness.Fixture(t, "minimal"))
			e.Registry().Stop()
			return ref
		}, 5, "refused"},
		"bad reference": {func(*testing.T, *harness.Env) string { return "Not A Reference" }, 1, "reference"},
		"no layout":     {func(_ *testing.T, e *harness.Env) string { return "oci-layout:" + e.MakeDir("none") }, 5, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				dir := e.MountDir()
				r := e.Run(tt.ref(t, e), dir).Want(t, tt.code, tt.want)
				if r.Stdout != "" || strings.Contains(r.Stderr, "goroutine ") {
					t.Errorf("output: %v", r)
				}
				if lines := harness.MountLines(t, dir); lines != nil {
					t.Errorf("mounted: %v", lines)
				}
				if pids := harness.Pids(e.Bin); len(pids) > 0 {
					t.Errorf("processes left: %v", pids)
				}
			})
		})
	}
}

// TestCrowdedCache: 200,000 files in the cache folder do not delay a mount.
func TestCrowdedCache(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "minimal"))
	e.Mount(ref).Unmount()
	var sum [32]byte
	for n := range 200_000 {
		sum = sha256.Sum256(sum[:])
		name := fmt.Sprintf("%s/blobs/%x/%x", e.CacheDir(), sum[:1], sum)
		if err := os.WriteFile(name, []byte("x"), 0o400); os.IsNotExist(err) {
			if err := os.Mkdir(name[:len(name)-65], 0o700); err != nil {
				t.Fatal(err)
			}
			err = os.WriteFile(name, []byte("x"), 0o400)
			if err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(n, err)
		}
	}
	dir := e.MountDir()
	r := e.Run(ref, dir).Want(t, 0)
	e.Mounted(ref, dir).Compare("world/fs", harness.Want(t, "minimal"))
	t.Logf("mount took %v", r.Took)
	if r.Took > time.Minute {
		t.Errorf("the mount took %v", r.Took)
	}
}
