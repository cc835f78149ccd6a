package e2e

import (
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// hangBound is when a refusal counts as hanging: the slowest takes a tenth of it.
const hangBound = time.Minute

// refused runs a command that must fail with this exit code and these words on stderr, and must leave
// nothing behind: no mount, no process, nothing written outside the cache and the log.
func refused(t *testing.T, e *harness.Env, code int, words []string, args ...string) harness.Result {
	t.Helper()
	mounts, pids, files := mountsOf(t, e), harness.Pids(e.Bin), filesOf(t, e)
	r := e.Start(args...).Wait(hangBound)
	calm(t, e, r)
	r.Want(t, code, words...)
	if got := mountsOf(t, e); !slices.Equal(got, mounts) {
		t.Errorf("mounted all the same: before %v, after %v", mounts, got)
	}
	// A helper of the command may be in /proc for a moment longer.
	harness.Eventually(t, harness.Limit, "the processes of before",
		func() bool { return slices.Equal(harness.Pids(e.Bin), pids) })
	if got := filesOf(t, e); !maps.Equal(got, files) {
		t.Errorf("files changed outside the cache: before %v, after %v", files, got)
	}
	return r
}

// calm fails the test for the traces of a crash, and for control characters that came from outside.
func calm(t *testing.T, e *harness.Env, r harness.Result) {
	t.Helper()
	for _, text := range []string{r.Stdout, r.Stderr, e.Logs()} {
		for _, bad := range []string{"panic:", "goroutine ", "runtime error", "\x1b"} {
			if strings.Contains(text, bad) {
				t.Errorf("%q in the output: %v\n%s", bad, r, e.Logs())
			}
		}
	}
	if r.Code != 0 && r.Stderr == "" && r.Stdout == "" {
		t.Errorf("it failed without a word: %v", r)
	}
}

func mountsOf(t *testing.T, e *harness.Env) []harness.MountLine {
	t.Helper()
	return slices.DeleteFunc(harness.Mounts(t),
		func(m harness.MountLine) bool { return !strings.HasPrefix(m.Dir, e.Dir+"/") })
}

// filesOf lists everything in an Env, with sizes of files, but the cache, the logs and what is mounted.
func filesOf(t *testing.T, e *harness.Env) map[string]int64 {
	t.Helper()
	skip := []string{e.CacheDir(), e.Path("state/pfmount")}
	for _, m := range mountsOf(t, e) {
		skip = append(skip, m.Dir)
	}
	list := map[string]int64{}
	err := filepath.WalkDir(e.Dir, func(path string, d fs.DirEntry, err error) error {
		if slices.Contains(skip, path) {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		list[path] = 0
		if d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				list[path] = info.Size()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// megabytes is a memory bound in bytes; what the race detector adds to a binary is not the binary's.
func megabytes(n int64) int64 {
	if harness.Race() {
		n *= 8
	}
	return n << 20
}

// blob hands out the bytes of a layer.
func blob(t *testing.T, l *imgbuild.Layer) []byte {
	t.Helper()
	data, err := l.Wire.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(data)
}

// nested is n arrays one inside the other.
func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
