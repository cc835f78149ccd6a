package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// largeDiff is an image whose model diff is above what a mount fetches by itself, with some files.
func largeDiff(t *testing.T) *imgbuild.Image {
	t.Helper()
	return harness.Build(t, imgbuild.Spec{
		Top: map[string][]byte{"model.diff": noise(3 << 20)},
		Seq: imgbuild.Folders(4, 25, imgbuild.Numbered(100)),
	})
}

// noise is n bytes that do not compress.
func noise(n int64) []byte {
	b := make(buffer, 0, n)
	imgbuild.Noise{Seed: 5, Len: n}.WriteTo(&b) // a buffer takes everything
	return b
}

type buffer []byte

func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// wires gives what a set of GETs must be: each wire digest once.
func wires(img *imgbuild.Image, paths ...string) map[string]int {
	m := map[string]int{}
	for _, p := range paths {
		m[img.WireOf(p)] = 1
	}
	return m
}

// mountSet is what mounting asks for: config, signature and the small top-level blobs.
func mountSet(img *imgbuild.Image, but ...string) map[string]int {
	fields := slices.DeleteFunc(slices.Clone(imgbuild.TopFields[:]),
		func(f string) bool { return slices.Contains(but, f) })
	m := wires(img, fields...)
	m[img.Config().Digest] = 1
	m[img.Layers[0].Digest] = 1
	return m
}

// asked fails the test unless the registry was asked for exactly these blobs, and forgets them.
func asked(t *testing.T, srv *faultreg.Server, when string, want map[string]int) {
	t.Helper()
	if got := srv.Gets(faultreg.Blob); !maps.Equal(got, want) {
		t.Errorf("%s asked for %v, want %v", when, got, want)
	}
	srv.Reset()
}

// TestLazy counts what mount, find, ls -lR and reads ask the registry for.
func TestLazy(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		img := largeDiff(t)
		ref, srv := e.Push(img), e.Registry()
		m := e.Mount(ref)
		if n := srv.Count(faultreg.Match{Kind: faultreg.Manifest}); n != 1 {
			t.Errorf("mount sent %d manifest requests, want 1", n)
		}
		asked(t, srv, "mount", mountSet(img, "model.diff"))
		e.Sh(`find "$1" && find "$1" -type f`, m.Dir).Want(t, 0)
		asked(t, srv, "find", map[string]int{})
		e.Sh(`ls -lR "$1"/world "$1"/trace "$1"/cache`, m.Dir).Want(t, 0)
		asked(t, srv, "ls -lR without the large blob", map[string]int{})
		e.Sh(`ls -lR "$1"`, m.Dir).Want(t, 0)
		asked(t, srv, "ls -lR", wires(img, "model.diff"))
		e.Sh(`ls -lR "$1" && du "$1" && find "$1" -ls`, m.Dir).Want(t, 0)
		asked(t, srv, "ls -lR again", map[string]int{})
		m.Read("world/fs/d0001/f0003.txt")
		asked(t, srv, "one read", wires(img, "world/fs/d0001/f0003.txt"))
		m.Read("world/fs/d0001/f0003.txt")
		m.Read("blobs/sha256/" + blobName(img.Digest("world/fs/d0001/f0003.txt")))
		m.Read("manifest.json")
		m.Read("model/diff.json")
		m.Read("world/env.json")
		asked(t, srv, "reads of what is there", map[string]int{})
	})
}

// blobName is a digest's name below blobs/sha256.
func blobName(digest string) string {
	return digest[7:9] + "/" + digest[7:]
}

// TestOneRound: a mount asks for all the small top-level blobs before it waits for any.
func TestOneRound(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "basic")
	ref, srv, hold := e.Push(img), e.Registry(), faultreg.NewHold()
	tops := map[string]bool{}
	for _, f := range imgbuild.TopFields {
		tops[img.WireOf(f)] = true
	}
	srv.On(faultreg.Match{Kind: faultreg.Blob,
		Where: func(x *faultreg.Exchange) bool { return tops[x.Ref] }}, hold.Fault())
	dir := e.MountDir()
	p := e.Start(ref, dir)
	harness.Eventually(t, time.Minute, fmt.Sprintf("%d requests at once", len(tops)), func() bool {
		return hold.Waiting() == len(tops)
	})
	hold.Release()
	p.Wait(harness.Limit).Want(t, 0)
	e.Mounted(ref, dir).Unmount()
}

// Test32Readers: readers of one file cause one download, also by two names of one digest, and
// the end of one reader disturbs no other.
func Test32Readers(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		data := imgbuild.Pattern{Seed: 1, Len: 3 << 20}
		spec := imgbuild.Spec{Entries: []imgbuild.Entry{
			imgbuild.File("a", "0644", data), imgbuild.File("b", "0600", data),
		}}
		img := harness.Build(t, spec)
		ref, srv, hold := e.Push(img), e.Registry(), faultreg.NewHold()
		m := e.Mount(ref)
		srv.Reset()
		srv.On(faultreg.Match{Ref: img.WireOf("world/fs/a")}, hold.After(1000))
		var readers []*harness.Process
		for i := range 32 {
			readers = append(readers, e.Command("sha256sum",
				m.Path([]string{"world/fs/a", "world/fs/b"}[i%2])))
		}
		harness.Eventually(t, time.Minute, "the download", func() bool { return hold.Waiting() == 1 })
		// The first reader may have begun the download; it is killed while it waits.
		readers[0].Kill()
		hold.Release()
		want, err := spec.Want()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range readers[1:] {
			if r := p.Wait(harness.Limit).Want(t, 0); r.Stdout[:64] != want[0].SHA256 {
				t.Errorf("wrong content: %v", r)
			}
		}
		asked(t, srv, "32 readers", wires(img, "world/fs/a"))
	})
}

// TestSecondMount: what is cached is not asked for again, by tag and by digest; the first mount of a fork
// asks for what the fork changed.
func TestSecondMount(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		base, fork := harness.Fixture(t, "basic"), harness.Fixture(t, "fork-a")
		ref, forkRef, srv := e.Push(base), e.Push(fork), e.Registry()
		e.Set("LC_ALL", "C")
		readAll := func(ref, tag string) (onMount, onRead map[string]int) {
			srv.Reset()
			m := e.Mount(ref)
			onMount = srv.Gets(faultreg.Blob)
			m.Compare("world/fs", harness.Want(t, tag))
			onRead = srv.Gets(faultreg.Blob)
			m.Unmount()
			return onMount, onRead
		}
		if _, got := readAll(ref, "basic"); len(got) < 50 {
			t.Errorf("a cold read of everything asked for %d blobs only", len(got))
		}
		if _, got := readAll(ref, "basic"); len(got) != 0 {
			t.Errorf("second mount by tag asked for %v", got)
		}
		if n := srv.Count(faultreg.Match{}); n != 1 {
			t.Errorf("second mount by tag sent %d requests, want the manifest's", n)
		}
		readAll(srv.Ref("team/app", base.ManifestDigest()), "basic")
		if n := srv.Count(faultreg.Match{}); n != 0 {
			t.Errorf("second mount by digest sent %d requests: %v", n, srv.Log())
		}
		cached := map[string]bool{}
		for _, l := range base.Layers {
			cached[l.Digest] = true
		}
		onMount, onRead := readAll(forkRef, "fork-a")
		for digest, n := range onRead {
			if cached[digest] || n != 1 {
				t.Errorf("the fork's mount asked %d times for %s, which the base has: %v", n,
					digest, cached[digest])
			}
		}
		if len(onMount) == 0 || len(onRead) > 8 {
			t.Errorf("the fork's mount asked for %d blobs, with reads for %d; few have changed",
				len(onMount), len(onRead))
		}
	})
}
