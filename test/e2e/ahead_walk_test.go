package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// project is a tree of small files of all different content, with folders between the files of a folder.
func project(t *testing.T, dirs, files int) *imgbuild.Image {
	t.Helper()
	return harness.Build(t, imgbuild.Spec{Seq: func(yield func(imgbuild.Entry) bool) {
		for e := range imgbuild.Folders(dirs, files, imgbuild.Numbered(dirs*files)) {
			if e.Kind == "file" && strings.HasSuffix(e.Path, "0.txt") {
				e.Path = strings.TrimSuffix(e.Path, ".txt") + ".d/inner.txt"
			}
			if !yield(e) {
				return
			}
		}
	}})
}

// fileSet is every file of the image's tree, by wire digest.
func fileSet(img *imgbuild.Image) map[string]int {
	m := map[string]int{}
	for _, p := range img.Paths() {
		if strings.HasPrefix(p, "world/fs/") {
			m[img.WireOf(p)] = 1
		}
	}
	return m
}

// alone counts the requests for blobs that were under way at a time when no other began: what a
// reader of one file after the other waits for.
func alone(srv *faultreg.Server) (n int) {
	log := slices.DeleteFunc(srv.Log(), func(x faultreg.Exchange) bool { return x.Kind != faultreg.Blob })
	for i, x := range log {
		beside := false
		for j, y := range log {
			beside = beside || i != j && y.Start.Before(x.End) && x.Start.Before(y.End)
		}
		if !beside {
			n++
		}
	}
	return n
}

// TestWalks: whatever walks the tree, in whichever order it enters folders, has its files fetched
// many at once, each once, and no more at once than there may be. Without readahead each file is
// waited for alone.
func TestWalks(t *testing.T) {
	t.Parallel()
	const python = `python3 -c 'import os, sys
for d, _, files in os.walk(sys.argv[1]):
    for f in files: open(os.path.join(d, f), "rb").read()' "$1"`
	for name, walk := range map[string]string{
		"tar":    `tar -cf - -C "$1" . | cat >/dev/null`,
		"cp":     `cp -r "$1" "$HOME/copy"`,
		"grep":   `! grep -r "in no file" "$1"`,
		"find":   `find "$1" -type f -exec cat {} + >/dev/null`,
		"rsync":  `rsync -r "$1/" "$HOME/copy/"`,
		"python": python,
		"xargs":  `find "$1" -type f -print0 | xargs -0 -n 8 -P 4 cat >/dev/null`,
	} {
		t.Run(name, func(t *testing.T) {
			e := harness.New(t, "")
			img := project(t, 6, 50)
			ref, srv := e.Push(img), e.Registry()
			m := e.Mount(ref)
			srv.On(faultreg.Match{Kind: faultreg.Blob}, faultreg.Delay(50*time.Millisecond))
			srv.Reset()
			e.Sh(walk, m.Path("world/fs")).Want(t, 0)
			n, peak := alone(srv), srv.Peak()
			asked(t, srv, name, fileSet(img))
			if n > 30 || peak > 32 || peak < 12 {
				t.Errorf("of 300 requests %d were alone, and %d at most at once", n, peak)
			}
			m.Unmount()
		})
	}
}

// TestPrefetchNone: without readahead each file is waited for.
func TestPrefetchNone(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := project(t, 2, 20)
	ref, srv := e.Push(img), e.Registry()
	m := e.Mount(ref, "--prefetch=none")
	srv.Reset()
	e.Sh(`tar -cf - -C "$1" . | cat >/dev/null`, m.Path("world/fs")).Want(t, 0)
	if n := alone(srv); n != 40 {
		t.Errorf("of 40 requests %d were alone", n)
	}
	asked(t, srv, "tar", fileSet(img))
	e.Run("--prefetch=some", ref, e.MountDir()).Want(t, 1, "--prefetch")
}

// TestRandomReads: single reads of a large tree in no order cost at most a tenth more bytes than
// what is read.
func TestRandomReads(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := project(t, 20, 100)
	ref, srv := e.Push(img), e.Registry()
	m := e.Mount(ref)
	srv.Reset()
	paths := slices.DeleteFunc(img.Paths(), func(p string) bool { return !strings.HasPrefix(p, "world/fs/") })
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	read := map[string]bool{}
	for _, p := range paths[:200] {
		m.Read(p)
		read[img.WireOf(p)] = true
	}
	m.Unmount()
	var wanted, other int64
	for _, x := range srv.Log() {
		if read[x.Ref] {
			wanted += x.Bytes
		} else {
			other += x.Bytes
		}
	}
	if other*10 > wanted || wanted == 0 {
		t.Errorf("%d bytes fetched beside the %d that were read", other, wanted)
	}
}

// TestPrefetchAll: the whole image comes without a reader, each blob once, and no more than half of
// the connections are taken; the cache is not filled up by it.
func TestPrefetchAll(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := project(t, 4, 50)
	ref, srv := e.Push(img), e.Registry()
	m := e.Mount(ref, "--prefetch=all")
	want := maps.Clone(mountSet(img))
	maps.Copy(want, fileSet(img))
	harness.Eventually(t, time.Minute, "the whole image",
		func() bool { return maps.Equal(srv.Gets(faultreg.Blob), want) })
	m.Unmount()

	small := harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(1, 40, func(n int) imgbuild.Content {
		return imgbuild.Noise{Seed: uint64(n), Len: 100 << 10}
	})})
	ref = e.Push(small)
	srv.Reset()
	m = e.Mount(ref, "--prefetch=all", "--cache-dir", e.MakeDir("small"), "--cache-size", "2MB")
	harness.Eventually(t, time.Minute, "the end of the room",
		func() bool { return strings.Contains(e.Logs(), "no room") })
	n := 0
	for d := range srv.Gets(faultreg.Blob) {
		n += fileSet(small)[d]
	}
	if n < 5 || n > 19 {
		t.Errorf("%d blobs of 100 KiB are in a cache of 2 MB", n)
	}
	m.Unmount()
}

// TestBackgroundYields: a registry that limits is left alone by the background, and not by a reader.
func TestBackgroundYields(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := project(t, 4, 50)
	ref, srv := e.Push(img), e.Registry()
	files := fileSet(img)
	limit := srv.On(faultreg.Match{Kind: faultreg.Blob,
		Where: func(x *faultreg.Exchange) bool { return files[x.Ref] > 0 }},
		faultreg.Answer(http.StatusTooManyRequests, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`,
			"Retry-After", "20"))
	m := e.Mount(ref, "--prefetch=all")
	harness.Eventually(t, time.Minute, "the first refusal", func() bool { return limit.Hits() > 0 })
	refused := limit.Hits()
	limit.Off()
	srv.Reset()
	path := "world/fs/d0003/f0049.txt"
	m.Read(path)
	if n := srv.Count(faultreg.Match{Kind: faultreg.Blob}); n > 8 ||
		srv.Gets(faultreg.Blob)[img.WireOf(path)] != 1 || refused > 16 {
		t.Errorf("%d requests were refused; then %d were sent: %v", refused, n, srv.Gets(faultreg.Blob))
	}
	m.Unmount()
}

// TestLearned: a mount whose cache has lost the blobs, or of an image that came from the first,
// reads in the order that the first mount saw with far fewer waits and no more bytes; --no-hints
// does neither.
func TestLearned(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := project(t, 10, 50)
	fork := harness.Build(t,
		imgbuild.Spec{Parents: []string{"sha256:" + strings.TrimPrefix(img.CID(), "sha256:")},
			Seq: imgbuild.Folders(10, 50, imgbuild.Numbered(500))})
	ref, forkRef, srv := e.Push(img), e.Push(fork), e.Registry()
	srv.On(faultreg.Match{Kind: faultreg.Blob}, faultreg.Delay(20*time.Millisecond))
	var start []string // what a session reads first: files in no order of a walk
	for n := range 500 {
		if n%10 != 0 {
			start = append(start, fmt.Sprintf("world/fs/d%04d/f%04d.txt", n/50, n%50))
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	rng.Shuffle(len(start), func(i, j int) { start[i], start[j] = start[j], start[i] })
	start = start[:100]
	replay := func(ref string, options ...string) (waited int64, bytes int64) {
		e.Run("cache", "prune", "--to", "0").Want(t, 0)
		m := e.Mount(ref, options...)
		before := m.Status().WaitedReads
		srv.Reset()
		for _, p := range start {
			m.Read(p)
		}
		waited = m.Status().WaitedReads - before
		m.Unmount()
		return waited, srv.Sent()
	}
	cold, coldBytes := replay(ref, "--no-hints")
	if again, _ := replay(ref); again*10 < cold*9 {
		t.Errorf("%d waited without hints, %d with none there yet", cold, again)
	}
	for name, ref := range map[string]string{"the same image": ref, "a fork": forkRef} {
		waited, bytes := replay(ref)
		t.Logf("%s: %d of %d reads waited, %d bytes instead of %d", name, waited, cold, bytes, coldBytes)
		if waited*10 > cold*7 || bytes*100 > coldBytes*105 {
			t.Errorf("%s: %d reads waited, before %d; %d bytes, before %d", name, waited, cold,
				bytes, coldBytes)
		}
	}
	if waited, _ := replay(ref, "--no-hints"); waited*10 < cold*9 {
		t.Errorf("--no-hints: %d reads waited, before %d", waited, cold)
	}
	e.Run("cache", "prune", "--to", "0").Want(t, 0)
	srv.Reset()
	e.Run("warm", "--learned", ref).Want(t, 0)
	got, want := srv.Gets(faultreg.Blob), mountSet(img)
	maps.Copy(want, wires(img, start...))
	if !maps.Equal(got, want) {
		t.Errorf("warm --learned asked for %d blobs, want %d", len(got), len(want))
	}
}
