package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// Forks of a session: a family of forkCount images of forkFiles files, of which each has its own
// forkOwn, one in a hundred.
const (
	forkCount = 4
	forkFiles = 300
	forkOwn   = forkFiles / 100
	forkBytes = 96 << 10 // of a file, which does not compress
)

// fork builds the n-th image of a family, and gives the paths below the mount of the files that only it has.
func fork(t *testing.T, n int, parents []string) (*imgbuild.Image, []string) {
	t.Helper()
	var own []string
	img := harness.Build(t, imgbuild.Spec{Parents: parents,
		Seq: imgbuild.Folders(forkFiles/100, 100, func(file int) imgbuild.Content {
			seed := uint64(file + 1)
			if n > 0 && file%100 == n {
				seed += uint64(n) << 32
				own = append(own, fmt.Sprintf("world/fs/d%04d/f%04d.txt", file/100, file%100))
			}
			return imgbuild.Noise{Seed: seed, Len: forkBytes}
		})})
	if n > 0 && len(own) != forkOwn {
		t.Fatalf("%d files are the fork's own, want %d", len(own), forkOwn)
	}
	return img, own
}

// TestForks mounts a session and its forks one after the other with one cache and reads each whole:
// a fork fetches its own manifest, tree and files and nothing that the family has, and takes no
// more disk than that.
func TestForks(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	srv := e.Registry()
	var parents []string
	var firstBytes, firstDisk, disk int64
	for n := range forkCount {
		img, own := fork(t, n, parents)
		parents = []string{"sha256:" + img.CID()}
		ref := e.Push(img)
		srv.Reset()
		m := e.Mount(ref)
		e.Sh(`tar -cf - "$1" | cat >/dev/null`, m.Path("world/fs")).Want(t, 0)
		m.Unmount()
		sent, got := srv.Sent(), srv.Gets(faultreg.Blob)
		before := disk
		disk = numbers(t, e.Sh(`du -s --block-size=1 "$1" | cut -f1`, e.CacheDir()).Want(t, 0).Stdout)[0]
		if n == 0 {
			firstBytes, firstDisk = sent, disk
			continue
		}
		// Of the top-level blobs a fork has its own tree; the others may be asked for with it, as a guess.
		want := wires(img, append(own, "world.fs")...)
		want[img.Config().Digest], want[img.Layers[0].Digest] = 1, 1
		guessed := mountSet(img)
		maps.DeleteFunc(got, func(d string, _ int) bool { return guessed[d] == 1 && want[d] == 0 })
		if !maps.Equal(got, want) {
			t.Errorf("fork %d asked for %d blobs, want %d: more %v, less %v", n, len(got),
				len(want), lacking(got, want), lacking(want, got))
		}
		t.Logf("fork %d: %d bytes fetched, %d on disk; the first: %d, %d", n, sent, disk-before,
			firstBytes, firstDisk)
		if sent > firstBytes/50 {
			t.Errorf("fork %d fetched %d bytes, more than 2 %% of the first's %d", n, sent, firstBytes)
		}
		if disk-before > firstDisk/50 {
			t.Errorf("fork %d took %d bytes of disk, more than 2 %% of the first's %d", n,
				disk-before, firstDisk)
		}
	}
}

// lacking lists what of a b has not, or not as often.
func lacking(a, b map[string]int) []string {
	var list []string
	for k, n := range a {
		if b[k] != n {
			list = append(list, fmt.Sprintf("%d× %s", n, strings.TrimPrefix(k, "sha256:")[:12]))
		}
	}
	slices.Sort(list)
	return list
}
