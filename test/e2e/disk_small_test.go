package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// warned gives the warnings and errors in the daemons' logs, that of the signature aside, and fails
// the test for an error and for two of one kind.
func warned(t *testing.T, e *harness.Env) (kinds []string) {
	t.Helper()
	for line := range strings.Lines(e.Logs()) {
		_, rest, ok := strings.Cut(line, "level=WARN msg=")
		switch {
		case strings.Contains(line, "level=ERROR"):
			t.Errorf("an error: %s", line)
		case !ok || strings.Contains(line, "default key"):
			continue
		}
		kind, _, _ := strings.Cut(rest, " dir=")
		if slices.Contains(kinds, kind) {
			t.Errorf("not the first of its kind: %s", line)
		}
		kinds = append(kinds, kind)
	}
	return kinds
}

// noiseFiles is n files of half a megabyte that does not compress.
func noiseFiles(n int) (entries []imgbuild.Entry) {
	for i := range n {
		entries = append(entries, imgbuild.File(fmt.Sprintf("noise/%03d", i), "0644",
			imgbuild.Noise{Seed: uint64(i), Len: 500_000}))
	}
	return entries
}

// allRight reads the files of noiseFiles, in a few readers at once, and compares their hashes.
func allRight(t *testing.T, e *harness.Env, m *harness.Mount, img *imgbuild.Image, want int) {
	t.Helper()
	r := e.Sh(`cd "$1" && find . -type f | xargs -P 8 -n 10 sha256sum`, m.Path("world/fs/noise")).Want(t, 0)
	n := 0
	for line := range strings.Lines(r.Stdout) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ./")
		if "sha256:"+sum != img.Digest("world/fs/noise/"+name) {
			t.Errorf("%s: wrong content", name)
		}
		n++
	}
	if n != want {
		t.Errorf("%d files of %d were read", n, want)
	}
}

// TestSmallDisk: the cache's disk has 20 MB although the limit is 1 GB, and 100 MB in 200 files are
// read by eight readers, twice: all are right, eviction makes the room, and one warning of a kind
// tells where it does not.
func TestSmallDisk(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		img := harness.Build(t, imgbuild.Spec{Entries: noiseFiles(200)})
		disk := e.Tmpfs("disk", 20<<20)
		m := e.Mount(e.Serve(img), "--cache-dir="+filepath.Join(disk, "cache"), "--cache-size=1GiB")
		for range 2 {
			allRight(t, e, m, img, 200)
			harness.DropCaches(t)
		}
		// Too little is free; the disk is full, for the moment between an eviction and the end of
		// its readers; not kept.
		if kinds := warned(t, e); len(kinds) > 3 {
			t.Errorf("%d warnings: %q", len(kinds), kinds)
		}
		e.Run("cache", "info", "--cache-dir="+filepath.Join(disk, "cache")).Want(t, 0)
	})
}

// TestCacheTurns: the cache's folder can no longer be written, or used at all, under a mount that
// has half of the image in it: everything reads right and a few lines tell.
func TestCacheTurns(t *testing.T) {
	t.Parallel()
	folders := func(mode string) func(*testing.T, *harness.Env, string) {
		return func(t *testing.T, e *harness.Env, disk string) {
			e.Sh(`find "$1" -type d -exec chmod `+mode+` {} +`, disk+"/cache").Want(t, 0)
		}
	}
	for name, turn := range map[string]func(t *testing.T, e *harness.Env, disk string){
		"unwritable": folders("0500"),
		"closed": func(t *testing.T, _ *harness.Env, disk string) {
			if err := os.Chmod(filepath.Join(disk, "cache"), 0); err != nil {
				t.Fatal(err)
			}
		},
		"another's": func(t *testing.T, _ *harness.Env, disk string) {
			if err := os.Chown(filepath.Join(disk, "cache"), 12345, 12345); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				img := harness.Build(t, imgbuild.Spec{Entries: noiseFiles(40),
					Seq: imgbuild.Folders(2, 100, lines(200, 16))})
				disk := e.Tmpfs("disk", 200<<20)
				m := e.Mount(e.Serve(img), "--cache-dir="+filepath.Join(disk, "cache"))
				e.Sh(`cat "$1"/world/fs/d0000/*`, m.Dir).Want(t, 0)
				turn(t, e, disk)
				harness.DropCaches(t)
				noticed := name == "another's" || e.UID() != 0 // root may do what mode 0 forbids
				if noticed && name != "unwritable" {           // that is noticed when a blob is to be written
					harness.Eventually(t, time.Minute, "a warning",
						func() bool { return len(warned(t, e)) > 0 })
				}
				if r := e.Sh(`cat "$1"/world/fs/*/*.txt | sort -u | wc -l`, m.Dir).Want(t,
					0); r.Stdout != "200\n" {
					t.Errorf("small files: %v", r)
				}
				allRight(t, e, m, img, 40)
				harness.DropCaches(t)
				allRight(t, e, m, img, 40)
				kinds := warned(t, e)
				if len(kinds) > 3 || noticed != (len(kinds) > 0) {
					t.Errorf("%d warnings: %q", len(kinds), kinds)
				}
				m.Unmount()
			})
		})
	}
}
