package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestCachePrivate: under umask 000 nothing that a mount, its reads and the other commands leave in
// the cache, the log's folder or the runtime folder is open to another user.
func TestCachePrivate(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		img := harness.Build(t, imgbuild.Spec{
			Entries: []imgbuild.Entry{imgbuild.File("large", "0666", imgbuild.Pattern{Seed: 1, Len: 9 << 20})}, // with a sidecar
			Seq:     imgbuild.Folders(1, 20, imgbuild.Numbered(20)),
		})
		ref, dir := e.Serve(img), e.MountDir()
		e.Prefix = []string{"sh", "-c", `umask 000; exec "$@"`, "sh"}
		e.Run(ref, dir).Want(t, 0)
		m := e.Mounted(ref, dir)
		e.Sh(`cat "$1"/*/* >/dev/null`, m.Path("world/fs")+"/..").Want(t, 1) // world/fs is a folder
		e.Sh(`find "$1" -type f -exec cat {} + >/dev/null`, m.Dir).Want(t, 0)
		e.Run("warm", ref).Want(t, 0)
		e.Run("cache", "verify").Want(t, 0)
		e.Run("status").Want(t, 0)
		for _, place := range []string{e.CacheDir(), e.Path("state/pfmount"), e.Path("run")} {
			r := e.Sh(`find "$1" -perm /077 -ls; find "$1" | wc -l >&2`, place).Want(t, 0)
			if r.Stdout != "" || r.Stderr == "1\n" {
				t.Errorf("open to others: %v", r)
			}
		}
	})
}

// TestCacheRefused: a cache folder in which others could plant files is refused, with what to do,
// before anything is asked for; one that others may only read is closed to them.
func TestCacheRefused(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref := e.Serve(harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(1, 2, imgbuild.Numbered(2))}))
		e.Run("warm", ref).Want(t, 0)
		e.Registry().Reset()
		chmod := func(path string, mode os.FileMode) {
			t.Helper()
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		refused := func(words ...string) {
			t.Helper()
			dir := e.MountDir()
			e.Run(ref, dir).Want(t, 1, append(words, "--cache-dir")...)
			e.Run("warm", ref).Want(t, 1, words...)
			if lines := harness.MountLines(t, dir); len(lines) > 0 {
				t.Errorf("mounted all the same: %v", lines)
			}
			if n := len(e.Registry().Log()); n > 0 {
				t.Errorf("%d requests before the refusal", n)
			}
		}
		for _, below := range []string{"", "blobs", "tmp", "records"} {
			path := filepath.Join(e.CacheDir(), below)
			for _, mode := range []os.FileMode{0o770, 0o702, 0o777} {
				chmod(path, mode)
				refused(path, "group or by others", "chmod 700")
			}
			chmod(path, 0o700)
			if e.UID() != 0 {
				continue // what is another's an ordinary user cannot even open
			}
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Fatal(err)
			}
			refused("12345", "chown")
			if err := os.Chown(path, 0, -1); err != nil {
				t.Fatal(err)
			}
		}
		chmod(e.CacheDir(), 0o755)
		m := e.Mount(ref)
		m.Read("world/fs/d0000/f0000.txt")
		if st, err := os.Stat(e.CacheDir()); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("the folder has mode %v, %v", st.Mode(), err)
		}
	})
}
