package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// walkAll compares every file below world/fs of a mount with the image, read by one reader in order.
func walkAll(t *testing.T, m *harness.Mount, img *imgbuild.Image) {
	t.Helper()
	files := slices.DeleteFunc(img.Paths(), func(p string) bool { return !strings.HasPrefix(p, "world/fs/") })
	slices.SortFunc(files, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	m.Tree("world/fs", false) // as a walk lists what it reads: the kernel has heard of every file
	for _, p := range files {
		if got := harness.SHA256(m.Read(p)); got != img.Digest(p)[7:] {
			t.Errorf("%s: wrong bytes", p)
		}
	}
}

// TestShown: a walk through a cached tree finds nearly all of it in the kernel's page cache, with
// the right bytes, whatever the image's source. It causes no fetch. Without readahead, or when only
// one file is read, no file is pushed.
func TestShown(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := project(t, 6, 50)
		ref := e.Push(img)
		e.Run("warm", ref).Want(t, 0)
		for _, options := range [][]string{nil, {"--offline"}, {"--cache-verify=always"},
			{"--subdir=world/fs"}} {
			e.Registry().Reset()
			m := e.Mount(ref, options...)
			if slices.Contains(options, "--subdir=world/fs") {
				e.Sh(`tar -cf - -C "$1" . | tar -xf - -C "$2"; cd "$2" && find . -type f -exec sha256sum {} + | wc -l | grep -qx 300`, m.Dir, e.MakeDir("out")).Want(t, 0)
			} else {
				walkAll(t, m, img)
			}
			if n := m.Status().Shown; n < 200 {
				t.Errorf("%v: %d of 300 files were shown", options, n)
			}
			if n := e.Registry().Count(faultreg.Match{Kind: faultreg.Blob}); n != 0 {
				t.Errorf("%v: %d blobs fetched", options, n)
			}
			m.Unmount()
		}
		m := e.Mount(ref, "--prefetch=none")
		walkAll(t, m, img)
		if n := m.Status().Shown; n != 0 {
			t.Errorf("%d files were shown without readahead", n)
		}
		m.Unmount()
		m = e.Mount(ref)
		m.Tree("world/fs", false)
		m.Read("world/fs/d0003/f0007.txt")
		m.Read("world/fs/d0001/f0011.txt")
		if n := m.Status().Shown; n != 0 {
			t.Errorf("%d files were shown to who reads single ones", n)
		}
		m.Unmount()
	})
}

// TestShownDamaged: files that were damaged or removed in the cache are fetched again by the walk
// that meets them, and no wrong byte is shown.
func TestShownDamaged(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := project(t, 4, 50)
	ref := e.Push(img)
	e.Run("warm", ref).Want(t, 0)
	blobs, _ := filepath.Glob(e.CacheDir() + "/blobs/*/*")
	changed := 0
	for i, name := range blobs {
		info, err := os.Stat(name)
		if err != nil || info.Size() == 0 {
			continue
		}
		switch i % 4 {
		case 0: // as a disk rots: not even the time tells
			err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, make([]byte, info.Size()), 0o600),
				os.Chmod(name, 0o400), os.Chtimes(name, info.ModTime(), info.ModTime()))
			if err != nil {
				t.Fatal(err)
			}
			changed++
		case 1:
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			changed++
		}
	}
	e.Registry().Reset()
	m := e.Mount(ref)
	walkAll(t, m, img)
	if n, s := e.Registry().Count(faultreg.Match{Kind: faultreg.Blob}), m.Status().Shown; n < changed*3/4 || s < 50 {
		t.Errorf("%d of %d damaged or missing blobs were fetched, and %d files shown", n, changed, s)
	}
	m.Unmount()
}
