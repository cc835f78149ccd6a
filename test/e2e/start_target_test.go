package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

// startLimit bounds how long a refusal may take: the case's five seconds, times four for what runs beside it.
const startLimit = 20 * time.Second

// TestTargets: mount points that cannot be used are refused at once, with the reason, and left alone.
func TestTargets(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		make func(e *harness.Env) string
		want string
	}{
		"not empty": {func(e *harness.Env) string {
			dir := e.MountDir()
			e.WriteFile("m/"+filepath.Base(dir)+"/mine", []byte("mine"), 0o644)
			return dir
		}, "not empty"},
		"missing": {func(e *harness.Env) string { return e.Path("m/none") }, "no such file"},
		"a file":  {func(e *harness.Env) string { return e.WriteFile("m/file", nil, 0o644) }, "not a folder"},
		"dangling link": {func(e *harness.Env) string {
			os.Symlink("nowhere", e.Path("m/link"))
			return e.Path("m/link")
		}, "no such file"},
		"empty name":     {func(*harness.Env) string { return "" }, "empty"},
		"the cache":      {func(e *harness.Env) string { return e.MakeDir("cache/pfmount") }, "cache"},
		"in the cache":   {func(e *harness.Env) string { e.MakeDir("cache/pfmount"); return e.MakeDir("cache/pfmount/in") }, "cache"},
		"over the cache": {func(e *harness.Env) string { e.MakeDir("cache/pfmount"); return e.Path("cache") }, "cache"},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				ref, dir := e.Push(harness.Fixture(t, "minimal")), tt.make(e)
				before := len(harness.Mounts(t))
				code := 6
				if dir == "" {
					code = 1
				}
				r := e.Run(ref, dir).Want(t, code, tt.want)
				if r.Took > startLimit {
					t.Errorf("refused after %v", r.Took)
				}
				if n := len(harness.MountLines(t, dir)); n != 0 {
					t.Errorf("%d mounts on it (%d before)", n, before)
				}
				if data, err := os.ReadFile(dir + "/mine"); name == "not empty" && string(data) != "mine" {
					t.Errorf("the file in it: %q, %v", data, err)
				}
				if pids := harness.Pids(e.Bin); len(pids) != 0 {
					t.Errorf("processes left: %v", pids)
				}
			})
		})
	}
}

// TestMountedTwice: a second mount on the same place is refused and needs no second unmount.
func TestMountedTwice(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		m := e.Mount(e.Push(harness.Fixture(t, "minimal")))
		e.Run(m.Ref, m.Dir).Want(t, 6, "already mounted", "umount")
		e.Run(e.Push(harness.Fixture(t, "basic")), m.Dir).Want(t, 6, "already mounted")
		if n := len(harness.MountLines(t, m.Dir)); n != 1 {
			t.Fatalf("%d mounts on it", n)
		}
		m.Compare("world/fs", harness.Want(t, "minimal"))
		e.Sh(`fusermount3 -u "$1"`, m.Dir).Want(t, 0)
		m.Gone()
	})
}

// TestOddTargets: a symlink to a folder, relative names and names with spaces and newlines work,
// for mount, status and umount.
func TestOddTargets(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ dir, typed string }{
		"relative": {"there", "./there"}, "plain": {"there", "there"},
		"slash": {"there", "there//"}, "up": {"there", "there/../there"},
		"symlink": {"there", "../m/link"}, "space and newline": {"a b\nc", "a b\nc"},
		"quote": {`it's "so" \040`, `it's "so" \040`},
		"comma": {"a,b=c", "a,b=c"}, "umlaut": {"üñ\t漢", "./üñ\t漢"}, "dot": {"there", "there/."},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				real := e.MakeDir("m/" + tt.dir)
				if err := os.Symlink(real, e.Path("m/link")); err != nil {
					t.Fatal(err)
				}
				ref := e.Push(harness.Fixture(t, "minimal"))
				run := func(script string) harness.Result {
					return e.Sh(`cd "$1"; `+script, e.Path("m"), e.Bin, ref, tt.typed).Want(t, 0)
				}
				run(`"$2" "$3" "$4"`)
				e.Mounted(ref, real).Compare("world/fs", harness.Want(t, "minimal"))
				if r := run(`"$2" status "$4"`); strings.Contains(r.Stdout, "does not tell") ||
					!strings.Contains(r.Stdout, ref) {
					t.Errorf("status: %v", r)
				}
				run(`"$2" umount "$4"`)
				if n := len(harness.MountLines(t, real)); n != 0 {
					t.Errorf("%d mounts left", n)
				}
			})
		})
	}
}
