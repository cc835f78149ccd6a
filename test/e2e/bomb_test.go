package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// onDisk counts the blobs of a cache folder.
func onDisk(dir string) (blobs int) {
	_ = filepath.WalkDir(filepath.Join(dir, "blobs"), func(_ string, d fs.DirEntry, err error) error {
		// An error: it is gone meanwhile.
		if err == nil && d.Type().IsRegular() && len(d.Name()) == 64 {
			blobs++
		}
		return nil
	})
	return blobs
}

// watch looks all the time until stop at the file system of a cache folder, which has nothing else;
// stop gives the least free bytes it had. A sum of its files would count what is removed while it
// is made.
func watch(dir string) (stop func() (leastFree int64)) {
	end, done := make(chan bool), make(chan bool)
	least := int64(1 << 62)
	go func() {
		defer close(done)
		for {
			var st syscall.Statfs_t
			if syscall.Statfs(dir, &st) == nil {
				least = min(least, int64(st.Bavail)*st.Bsize)
			}
			select {
			case <-end:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(end)
		<-done
		return least
	}
}

// TestBombs: a layer of 99 KB that decodes to 3 GiB, in place of a blob whose size nothing signs.
// While the signature is not verified nothing of it is decoded, and the cache stays as it was;
// after it, neither the limit of the cache nor what is to stay free of its disk is passed, and
// the half of the cache that was read last stays.
func TestBombs(t *testing.T) {
	t.Parallel()
	const disk, floor = 96 << 20, 48 << 20
	for name, tt := range map[string]struct {
		options []string
		limit   int64
		field   string
		code    int // with a good signature
		says    string
	}{
		"limit": {[]string{"--cache-size=24MiB", "--cache-min-free=0"}, 24 << 20,
			"world.fs", 7, "--cache-size"},
		"floor": {[]string{"--cache-size=1GiB", "--cache-min-free=50%"}, disk - floor,
			"world.fs", 7, "--cache-min-free"},
		"not the tree's": {[]string{"--cache-size=24MiB", "--cache-min-free=0"}, 24 << 20,
			"trace.messages", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			dir := filepath.Join(e.Tmpfs("disk", disk), "cache")
			options := append([]string{"--cache-dir=" + dir}, tt.options...)
			files := imgbuild.Folders(1, 82,
				func(n int) imgbuild.Content { return imgbuild.Noise{Seed: uint64(n), Len: 200_000} })
			e.Run(append([]string{"warm", e.Push(harness.Build(t, imgbuild.Spec{Seq: files}))},
				options...)...).Want(t, 0)
			before := onDisk(dir)
			if before < 90 {
				t.Fatalf("%d blobs in the cache", before)
			}
			img := harness.Build(t, imgbuild.Spec{
				Entries: []imgbuild.Entry{plainFile("evil")},
				Top:     map[string][]byte{"trace.messages": []byte("evil\n")},
			})
			img.Layer(img.Digest(tt.field)).SetWire(bomb(3 << 30 >> 17))
			good := img.Signature

			img.SetSignature(imgbuild.Sign(append(img.Manifest, ' '), ""))
			for _, command := range [][]string{nil, {"inspect"}, {"ls"}, {"cat"}, {"warm"}} {
				args := append(command, e.Serve(img))
				switch {
				case len(command) == 0:
					args = append(args, e.MountDir())
				case command[0] == "cat":
					args = append(args, "world/fs/evil")
				}
				stop := watch(dir)
				refused(t, e, 4, []string{"signature"}, append(args, options...)...)
				free := stop()
				if after := onDisk(dir); after != before || free < disk-tt.limit {
					t.Errorf("%q with a bad signature: %d blobs, %d before; %d free at least",
						command, after, before, free)
				}
			}

			img.SetSignature(good)
			ref, mnt := e.Serve(img), e.MountDir()
			for range 2 {
				stop := watch(dir)
				var words []string
				if tt.says != "" {
					words = []string{tt.says}
				}
				r := e.Run(append([]string{ref, mnt}, options...)...).Want(t, tt.code, words...)
				if tt.code == 0 {
					m := e.Mounted(ref, mnt)
					if _, err := os.ReadFile(m.Path(imgbuild.TopPaths[tt.field])); !errors.Is(err,
						syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
						t.Errorf("the bomb reads: %v", err)
					}
					if got := string(m.Read("world/fs/evil")); got != "evil" {
						t.Errorf("its sibling reads %q", got)
					}
					m.Unmount()
				}
				free := stop()
				if after := onDisk(dir); after < before/2 || free < disk-tt.limit {
					t.Errorf("with a good signature: %d blobs, %d before; %d free at least: %v",
						after, before, free, r)
				}
			}
		})
	}
}

// TestTooLargeForCache: a file whose signed size the cache cannot have is refused before its
// layer is asked for, by the size, what is in the way and the option for it; nothing is evicted.
func TestTooLargeForCache(t *testing.T) {
	t.Parallel()
	img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{
		imgbuild.File("a", "0644", imgbuild.Text("a")),
		imgbuild.File("large", "0644", imgbuild.Pattern{Seed: 1, Len: 30 << 20}),
	}})
	for name, tt := range map[string]struct {
		options []string
		says    []string
	}{
		"limit": {[]string{"--cache-size=20MiB", "--cache-min-free=0"},
			[]string{"31457280", "20971520", "--cache-size"}},
		"floor": {[]string{"--cache-min-free=50%"}, []string{"31457280", "--cache-min-free"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			ref, dir := e.Push(img), filepath.Join(e.Tmpfs("disk", 40<<20), "cache")
			options := append([]string{"--cache-dir=" + dir}, tt.options...)
			e.Run(append([]string{"cat", ref, "world/fs/a"}, options...)...).Want(t, 0)
			before := onDisk(dir)
			e.Registry().Reset()
			refused(t, e, 7, tt.says, append([]string{"cat", ref, "world/fs/large"}, options...)...)
			m := e.Mount(ref, append([]string{"--prefetch=none"}, options...)...)
			if _, err := m.ReadErr("world/fs/large"); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("the large file: %v, want ENOSPC", err)
			}
			if got := string(m.Read("world/fs/a")); got != "a" {
				t.Errorf("its sibling reads %q", got)
			}
			m.Unmount()
			if n := e.Registry().Gets(faultreg.Blob)[img.WireOf("world/fs/large")]; n != 0 {
				t.Errorf("the layer was asked for %d times", n)
			}
			if after := onDisk(dir); after != before {
				t.Errorf("%d blobs, %d before", after, before)
			}
		})
	}
}
