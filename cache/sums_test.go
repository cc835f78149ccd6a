package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"testing"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cache/disk/layout"
)

// A byte goes bad in a blob of 9 MiB that is cached. What each mode makes of reads before and
// behind it: how many fills.
func TestVerifyLarge(t *testing.T) {
	t.Parallel()
	const size, bad = 9 << 20, 5<<20 + 17
	data := content(1, size)
	key := sha256.Sum256(data)
	for mode, want := range map[disk.VerifyMode]struct {
		elsewhere, first, again int64 // fills after a read of another chunk, of the bad one, of one that went bad after it was read
		right                   bool  // whether the bad chunk is noticed
	}{
		disk.VerifyFirst:  {0, 1, 1, true},
		disk.VerifyAlways: {0, 1, 2, true},
	} {
		t.Run(mode.String(), func(t *testing.T) {
			dir := t.TempDir()
			mustGet(t, testStore(t, Options{Dir: dir, Verify: mode}), data, new(source).fill(data))
			rewrite(t, blobFile(dir, data), bad, []byte{^data[bad]})
			s, src := testStore(t, Options{Dir: dir, Verify: mode}), &source{}
			read := func(off int64) bool {
				f, err := s.Open(context.Background(), key, size, src.fill(data))
				must(t, err)
				defer f.Close()
				p := make([]byte, 100)
				_, err = f.ReadAt(p, off-50)
				must(t, err)
				return bytes.Equal(p, data[off-50:off+50])
			}
			if !read(3<<20) || src.fills.Load() != want.elsewhere {
				t.Errorf("another chunk: %d fills, want %d", src.fills.Load(), want.elsewhere)
			}
			if read(bad) != want.right || src.fills.Load() != want.first {
				t.Errorf("the bad chunk: %d fills, want %d", src.fills.Load(), want.first)
			}
			rewrite(t, blobFile(dir, data), bad, []byte{^data[bad]})
			if _ = read(bad); src.fills.Load() != want.again {
				t.Errorf("bad once more: %d fills, want %d", src.fills.Load(), want.again)
			}
		})
	}
}

// A sidecar that is missing or damaged costs one hash of the blob and is written again.
func TestSidecar(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, path string){
		"sound":   func(*testing.T, string) {},
		"missing": func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"short":   func(t *testing.T, path string) { cut(t, path, 50) },
		"altered": func(t *testing.T, path string) { rewrite(t, path, 100, []byte("x")) },
		"header":  func(t *testing.T, path string) { rewrite(t, path, 3, []byte("x")) },
		"symlink": func(t *testing.T, path string) {
			must(t, errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)))
		},
		"of zeros":  func(t *testing.T, path string) { rewrite(t, path, 0, make([]byte, layout.SumsSize(100, 4))) },
		"directory": func(t *testing.T, path string) { must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700))) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data := content(1, 100)
			path := blobFile(dir, data) + layout.SumsSuffix
			mustGet(t, testStore(t, Options{Dir: dir}, tiny), data, new(source).fill(data))
			if !exists(path) {
				t.Fatal("no sidecar")
			}
			do(t, path)
			s := testStore(t, Options{Dir: dir}, tiny)
			mustGet(t, s, data, noFill)
			if n := s.Stats().Damaged; n != 0 {
				t.Errorf("%d damaged", n)
			}
			if name == "directory" {
				return // the repair cannot replace it; the blob is hashed whole each time
			}
			got, err := os.ReadFile(path)
			if err != nil || layout.DecodeSums(got, sha256.Sum256(data), 100, 4) == nil {
				t.Errorf("the sidecar was not written again: %v", err)
			}
		})
	}
}
