package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// TestLs: what ls lists, in each form, equals the image, and nothing but the tree is fetched.
func TestLs(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := largeDiff(t)
		ref := e.Push(img)
		r := e.Run("ls", ref).Want(t, 0)
		top := strings.Fields(r.Stdout)
		slices.Sort(top)
		if want := "blobs cache effects manifest.json manifest.json.sig model trace world"; strings.Join(top, " ") != want {
			t.Errorf("ls lists %q", top)
		}
		asked(t, e.Registry(), "ls", mountSet(img, "model.diff"))
		if r := e.Run("ls", "-R", "-0", ref, "world/fs").Want(t, 0); strings.Count(r.Stdout,
			"\x00") != 104 || !strings.Contains(r.Stdout, "\x00world/fs/d0003/f0024.txt\x00") {
			t.Errorf("ls -R -0: %v", r)
		}
		if r := e.Run("ls", ref, "-l", "model").Want(t, 0); !strings.Contains(r.Stdout, " ? ") ||
			!strings.Contains(r.Stdout, "diff.json") {
			t.Errorf("ls -l does not show an unknown size: %v", r)
		}
		if r := e.Run("ls", "-l", ref, "world/fs/d0000/f0007.txt").Want(t,
			0); !strings.Contains(r.Stdout, "-rw-r--r--") || !strings.Contains(r.Stdout, " 22 ") {
			t.Errorf("ls -l of a file: %v", r)
		}
		if n := len(e.Registry().Gets(faultreg.Blob)); n > 0 {
			t.Errorf("ls asked for %d blobs again", n)
		}
		e.Run("ls", ref, "world/none").Want(t, 1, "world/none")
		e.Run("ls").Want(t, 1, "IMAGE")
	})
}

// TestLsOdd: names with newlines and control codes are shown safely, and verbatim with -0.
func TestLsOdd(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	ref := e.Push(harness.Fixture(t, "basic"))
	r := e.Run("ls", "-R", "-l", ref).Want(t, 0)
	for _, w := range harness.Want(t, "basic") {
		if w.Kind == "symlink" && !strings.Contains(r.Stdout, " -> ") {
			t.Errorf("no link target is shown: %v", r)
		}
	}
	got := strings.Split(strings.TrimSuffix(e.Run("ls", "-R", "-0", ref, "world/fs").Want(t,
		0).Stdout, "\x00"), "\x00")
	var want []string
	for _, w := range harness.Want(t, "basic") {
		want = append(want, "world/fs/"+w.Path)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("ls -R -0 lists %q, want %q", got, want)
	}
}

// TestCat: what cat prints, and what it refuses.
func TestCat(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := harness.Build(t, toolSpec())
		ref := e.Push(img)
		e.Run("ls", ref).Want(t, 0)
		e.Registry().Reset()
		if r := e.Run("cat", ref, "world/fs/d0001/f0003.txt", "/world/fs/one",
			"manifest.json").Want(t, 0); r.Stdout != "file 23 has the needle\nx"+string(img.Manifest) {
			t.Errorf("cat: %v", r)
		}
		asked(t, e.Registry(), "cat", wires(img, "world/fs/d0001/f0003.txt", "world/fs/one"))
		if r := e.Run("cat", ref, "world/fs/big").Want(t,
			0); "sha256:"+harness.SHA256([]byte(r.Stdout)) != img.Digest("world/fs/big") {
			t.Errorf("cat of a large file: %d bytes", len(r.Stdout))
		}
		e.Run("cat", ref, "world/fs/link").Want(t, 1, "symlink", "bin/hello")
		e.Run("cat", ref, "world/fs/bin").Want(t, 1, "folder")
		e.Run("cat", ref, "world/fs/absent").Want(t, 1, "world/fs/absent")
		e.Run("cat", ref).Want(t, 1, "PATH")
		e.Run("cat", "--offline", ref, "world/fs/d0002/f0002.txt").Want(t, 5)
		if r := e.Run("cat", "--offline", ref, "world/fs/one").Want(t, 0); r.Stdout != "x" {
			t.Errorf("cat --offline of what is cached: %v", r)
		}
		if r := e.Sh(`"$1" cat "$2" world/fs/big | head -c 10 | wc -c`, e.Bin,
			ref); strings.TrimSpace(r.Stdout) != "10" || strings.Contains(r.Stderr, "goroutine") {
			t.Errorf("cat into a pipe that closes: %v", r)
		}
		img.Drop(img.Digest("world/fs/d0004/f0000.txt"))
		e.Run("cat", e.Serve(img), "world/fs/d0004/f0000.txt").Want(t, 4,
			img.Digest("world/fs/d0004/f0000.txt"))
	})
}

// TestWarm: what is warmed is read without the registry, a path alone or all of it.
func TestWarm(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := harness.Fixture(t, "basic")
		ref, srv := e.Push(img), e.Registry()
		e.Run("ls", ref).Want(t, 0)
		srv.Reset()
		e.Run("warm", ref, "world/env.json", "manifest.json").Want(t, 0)
		asked(t, srv, "warm of what is there", map[string]int{})
		e.Run("warm", ref, "world/none").Want(t, 1, "world/none")
		e.Run("warm").Want(t, 1, "IMAGE")
		e.Run("warm", ref).Want(t, 0)
		for digest, n := range srv.Gets(faultreg.Blob) {
			if n != 1 {
				t.Errorf("%s was asked for %d times", digest, n)
			}
		}
		srv.Reset()
		e.Run("warm", ref).Want(t, 0)
		asked(t, srv, "warm again", map[string]int{})
		srv.Stop()
		m := e.Mount(ref, "--offline")
		m.Compare("world/fs", harness.Want(t, "basic"))
		compareBlobs(t, m, img)
	})
}

// blobFiles lists the cached blobs.
func blobFiles(t *testing.T, e *harness.Env) []string {
	t.Helper()
	files, err := filepath.Glob(e.CacheDir() + "/blobs/*/*")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(f string) bool { return len(filepath.Base(f)) != 64 })
}

// TestCacheCommands: prune, verify and clear do what they say, also while a mount uses the cache.
func TestCacheCommands(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref := e.Push(harness.Fixture(t, "basic"))
		m := e.Mount(ref)
		m.Compare("world/fs", harness.Want(t, "basic"))
		all := len(blobFiles(t, e))
		e.Run("cache", "verify").Want(t, 0)
		if n := len(blobFiles(t, e)); n != all {
			t.Errorf("verify of a sound cache left %d of %d blobs", n, all)
		}
		damaged := largest(t, blobFiles(t, e))
		if err := os.Chmod(damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(damaged, 5); err != nil {
			t.Fatal(err)
		}
		if r := e.Run("cache", "verify").Want(t, 7); !strings.Contains(r.Stdout, filepath.Base(damaged)) {
			t.Errorf("the damaged blob is not named: %v", r)
		}
		if _, err := os.Stat(damaged); err == nil {
			t.Error("the damaged blob is still there")
		}
		e.Run("cache", "verify").Want(t, 0)
		harness.DropCaches(t)
		m.Compare("world/fs", harness.Want(t, "basic"))
		e.Run("cache", "prune", "--to", "400kB").Want(t, 0)
		// The largest was fetched anew, so it may be the one used last, which all others go before.
		if n := len(blobFiles(t, e)); n >= all {
			t.Errorf("prune to a size left %d of %d blobs", n, all)
		}
		e.Sh(`test "$(du -s -B1 "$1" | cut -f1)" -le 400000 || { du -a "$1"; exit 1; }`,
			e.CacheDir()).Want(t, 0)
		e.Run("cache", "prune").Want(t, 0)
		if n := len(blobFiles(t, e)); n != 0 {
			t.Errorf("prune left %d blobs", n)
		}
		harness.DropCaches(t)
		m.Compare("world/fs", harness.Want(t, "basic"))
		e.Run("cache", "clear").Want(t, 0)
		if n := len(blobFiles(t, e)); n != 0 {
			t.Errorf("clear left %d blobs", n)
		}
		harness.DropCaches(t)
		m.Compare("world/fs", harness.Want(t, "basic"))
		e.Run("cache").Want(t, 1, "info, prune, verify, clear")
		e.Run("cache", "burn").Want(t, 1, "burn")
		e.Run("cache", "clear", "x").Want(t, 1, "x")
		e.Run("cache", "prune", "--to", "much").Want(t, 1, "much")
	})
}

// largest is the largest of some files.
func largest(t *testing.T, files []string) string {
	t.Helper()
	return slices.MaxFunc(files, func(a, b string) int {
		x, err := os.Stat(a)
		y, err2 := os.Stat(b)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		return int(x.Size() - y.Size())
	})
}

// TestUmount: what umount ends and what it refuses, with its reasons.
func TestUmount(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		m := e.Mount(e.Push(harness.Fixture(t, "minimal")))
		e.Run("umount").Want(t, 1, "MOUNTPOINT")
		e.Run("umount", e.MakeDir("plain")).Want(t, 6, "not a mount")
		e.Run("umount", "/proc").Want(t, 6, "not a mount of pfmount")
		user := e.Command("sh", "-c", `cd "$1" && echo in && exec sleep 300`, "sh", m.Path("world"))
		harness.Eventually(t, harness.Limit, "a user of the mount",
			func() bool { return user.Stdout() == "in\n" })
		e.Run("umount", m.Dir).Want(t, 6, "in use", "sleep")
		m.Compare("world/fs", harness.Want(t, "minimal"))
		e.Run("umount", "--lazy", m.Dir).Want(t, 0)
		if lines := harness.MountLines(t, m.Dir); lines != nil {
			t.Errorf("still mounted: %v", lines)
		}
		user.Kill()
		m.Gone()
		e.Run("umount", m.Dir).Want(t, 6)
	})
}
