package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A byte goes bad in a blob of 9 MiB that is cached. What each mode makes of reads before and behind it: how many fills.
func TestVerifyLarge(t *testing.T) {
	const size, bad = 9 << 20, 5<<20 + 17
	data := content(1, size)
	key := sha256.Sum256(data)
	for mode, want := range map[VerifyMode]struct {
		elsewhere, first, again int64 // fills after a read of another chunk, of the bad one, of one that went bad after it was read
		right                   bool  // whether the bad chunk is noticed
	}{
		VerifyFirst:  {0, 1, 1, true},
		VerifyAlways: {0, 1, 2, true},
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
	for name, do := range map[string]func(t *testing.T, path string){
		"sound":   func(*testing.T, string) {},
		"missing": func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"short":   func(t *testing.T, path string) { cut(t, path, 50) },
		"altered": func(t *testing.T, path string) { rewrite(t, path, 100, []byte("x")) },
		"header":  func(t *testing.T, path string) { rewrite(t, path, 3, []byte("x")) },
		"symlink": func(t *testing.T, path string) {
			must(t, errors.Join(os.Rename(path, path+"x"), os.Symlink(path+"x", path)))
		},
		"of zeros":  func(t *testing.T, path string) { rewrite(t, path, 0, make([]byte, sumsSize(100, 4))) },
		"directory": func(t *testing.T, path string) { must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o700))) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data := content(1, 100)
			path := blobFile(dir, data) + sumsSuffix
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
			if err != nil || decodeSums(got, sha256.Sum256(data), 100, 4) == nil {
				t.Errorf("the sidecar was not written again: %v", err)
			}
		})
	}
}

func TestDecodeSums(t *testing.T) {
	key := [32]byte{1, 2, 3}
	sums := bytes.Repeat([]byte("s"), 3*sumSize)
	good := encodeSums(key, 11, 4, sums)
	if got := decodeSums(good, key, 11, 4); !bytes.Equal(got, sums) {
		t.Errorf("got %x", got)
	}
	for name, bad := range map[string]func() []byte{
		"other key":   func() []byte { return decodeSums(good, [32]byte{1}, 11, 4) },
		"other size":  func() []byte { return decodeSums(good, key, 12, 4) },
		"other chunk": func() []byte { return decodeSums(good, key, 11, 5) },
		"empty":       func() []byte { return decodeSums(nil, key, 11, 4) },
		"short":       func() []byte { return decodeSums(good[:len(good)-1], key, 11, 4) },
		"long":        func() []byte { return decodeSums(append(bytes.Clone(good), 0), key, 11, 4) },
	} {
		if bad() != nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		if decodeSums(flipped, key, 11, 4) != nil {
			t.Errorf("byte %d flipped: accepted", i)
		}
	}
}

// What disks do to a chunk shows in its sum.
func TestSumMatches(t *testing.T) {
	good := content(1, 64<<10)
	m := newSummer(len(good))
	m.write(good)
	sums := m.finish()
	if !sumMatches(good, sums, 0) {
		t.Fatal("the chunk itself does not match")
	}
	for name, damage := range map[string]func(p []byte){
		"a bit":         func(p []byte) { p[12345] ^= 4 },
		"a lost page":   func(p []byte) { clear(p[8192:12288]) },
		"swapped pages": func(p []byte) { copy(p[:4096], good[4096:]); copy(p[4096:8192], good) },
		"a torn write":  func(p []byte) { clear(p[40<<10:]) },
		"shifted":       func(p []byte) { copy(p[1:], good) },
		"all zeros":     func(p []byte) { clear(p) },
	} {
		bad := bytes.Clone(good)
		if damage(bad); sumMatches(bad, sums, 0) {
			t.Errorf("%s is not noticed", name)
		}
	}
	if sumMatches(good[:len(good)-1], sums, 0) {
		t.Error("a missing byte is not noticed")
	}
}

func TestStamp(t *testing.T) {
	key := sha256.Sum256(nil)
	st := func(sec, nsec int64, mode uint32) *unix.Stat_t {
		return &unix.Stat_t{Mode: unix.S_IFREG | mode, Mtim: unix.Timespec{Sec: sec, Nsec: nsec}}
	}
	plain := stamp(key)
	for name, c := range map[string]struct {
		st   *unix.Stat_t
		want bool
	}{
		"plain":          {st(plain.Unix(), int64(plain.Nanosecond()), 0o400), true},
		"seconds only":   {st(plain.Unix(), 0, 0o400), true},
		"other second":   {st(plain.Unix()+1, int64(plain.Nanosecond()), 0o400), false},
		"other fraction": {st(plain.Unix(), int64(plain.Nanosecond())+1, 0o400), false},
		"other mode":     {st(plain.Unix(), int64(plain.Nanosecond()), 0o600), false},
		"set-uid":        {st(plain.Unix(), int64(plain.Nanosecond()), 0o4400), false},
	} {
		if got := exact(key, c.st); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for _, k := range [][32]byte{{}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		if m := stamp(k); m.Year() < 2000 || m.Year() > 2017 || m.Unix()%2 != 0 {
			t.Errorf("stamp(%x) = %v", k[:8], m)
		}
	}
}
