package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cache/disk/layout"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rewrite replaces bytes of a file and restores its mtime, as bad hardware would leave it.
func rewrite(t *testing.T, path string, off int64, data []byte) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	must(t, os.Chmod(path, 0o600))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(data, off)
	must(t, errors.Join(err, f.Close()))
	must(t, os.Chmod(path, 0o400))
	must(t, os.Chtimes(path, time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix())))
}

// cut changes a file's length, as its owner may.
func cut(t *testing.T, path string, size int64) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	must(t, os.Chmod(path, 0o600))
	must(t, os.Truncate(path, size))
	must(t, os.Chmod(path, os.FileMode(st.Mode&0o777)))
}

// damages lists what can happen to a cached file between two reads. The cache must notice each
// before it serves a byte. cheap is true where the checks made when a file is opened suffice.
var damages = map[string]struct {
	cheap bool
	do    func(t *testing.T, path, other string)
}{
	"short":              {true, func(t *testing.T, path, _ string) { cut(t, path, 10) }},
	"empty":              {true, func(t *testing.T, path, _ string) { cut(t, path, 0) }},
	"long":               {true, func(t *testing.T, path, _ string) { cut(t, path, 1000) }},
	"altered":            {false, func(t *testing.T, path, _ string) { rewrite(t, path, 33, []byte("!")) }},
	"altered at the end": {false, func(t *testing.T, path, _ string) { rewrite(t, path, 99, []byte("!")) }},
	"altered by an editor": {true, func(t *testing.T, path, _ string) {
		rewrite(t, path, 33, []byte("!"))
		must(t, os.Chtimes(path, time.Now(), time.Now()))
	}},
	"other blob's file": {true, func(t *testing.T, path, other string) { must(t, os.Rename(other, path)) }},
	"symlink": {true, func(t *testing.T, path, other string) {
		must(t, os.Remove(path))
		must(t, os.Symlink(other, path))
	}},
	"symlinked directory": {true, func(t *testing.T, path, other string) {
		dir := filepath.Dir(path)
		must(t, os.Rename(dir, dir+"-moved"))
		must(t, os.Symlink(dir+"-moved", dir))
		rewrite(t, path, 33, []byte("!"))
	}},
	"file for a directory": {true, func(t *testing.T, path, _ string) {
		must(t, os.RemoveAll(filepath.Dir(path)))
		must(t, os.WriteFile(filepath.Dir(path), []byte("x"), 0o600))
	}},
	"directory": {true, func(t *testing.T, path, _ string) {
		must(t, os.Remove(path))
		must(t, os.Mkdir(path, 0o700))
	}},
	"fifo": {true, func(t *testing.T, path, _ string) {
		must(t, os.Remove(path))
		must(t, unix.Mkfifo(path, 0o400))
	}},
	"socket": {true, func(t *testing.T, path, _ string) {
		must(t, os.Remove(path))
		must(t, unix.Mknod(path, unix.S_IFSOCK|0o400, 0))
	}},
	"mode and content": {true, func(t *testing.T, path, _ string) {
		rewrite(t, path, 33, []byte("!"))
		must(t, os.Chmod(path, 0o644))
	}},
}

func TestDamage(t *testing.T) {
	t.Parallel()
	for name, d := range damages {
		for _, mode := range []disk.VerifyMode{disk.VerifyFirst, disk.VerifyAlways} {
			for kind, change := range map[string]func(*limits){"whole": func(*limits) {}, "chunks": tiny} {
				for _, size := range []int64{100, -1} {
					t.Run(name+" "+mode.String()+" "+kind, func(t *testing.T) {
						t.Parallel()
						testDamage(t, d.do, mode, change, size)
					})
				}
			}
		}
	}
}

func testDamage(t *testing.T,
	do func(*testing.T, string, string), mode disk.VerifyMode, change func(*limits), size int64) {
	dir := t.TempDir()
	data, other := content(1, 100), content(2, 100)
	key := sha256.Sum256(data)
	first := testStore(t, Options{Dir: dir, Verify: mode}, change)
	mustGet(t, first, data, new(source).fill(data))
	mustGet(t, first, other, new(source).fill(other))
	must(t, first.Close())
	do(t, blobFile(dir, data), blobFile(dir, other))

	src := &source{}
	s := testStore(t, Options{Dir: dir, Verify: mode}, change)
	for range 2 {
		f, err := s.Open(context.Background(), key, size, src.fill(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(same(f, data), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if n := src.fills.Load(); n != 1 {
		t.Errorf("%d fills, want 1", n)
	}
	if n := s.Stats().Damaged; n != 1 {
		t.Errorf("%d damaged, want 1", n)
	}
	must(t, s.Close())
	again := testStore(t, Options{Dir: dir, Verify: mode}, change)
	mustGet(t, again, data, noFill)
}

// A file of another user is dropped. Root can make one.
func TestForeignFile(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) {
		return
	}
	dir := t.TempDir()
	data := content(1, 100)
	mustGet(t, testStore(t, Options{Dir: dir}), data, new(source).fill(data))
	s := testStore(t, Options{Dir: dir})
	if err := os.Chown(blobFile(dir, data), 1, 1); err == nil {
		mustGet(t, s, data, new(source).fill(data))
		if n := s.Stats().Damaged; n != 1 {
			t.Errorf("%d damaged, want 1", n)
		}
	} // else it is a user namespace with one user
}

// A sound file whose mode or time is not ours, restored from a backup for instance, is hashed and kept.
func TestSoundButTouched(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(path string) error{
		"time": func(path string) error { return os.Chtimes(path, time.Now(), time.Now()) },
		"mode": func(path string) error { return os.Chmod(path, 0o644) },
	} {
		for _, mode := range []disk.VerifyMode{disk.VerifyFirst, disk.VerifyAlways} {
			t.Run(name+" "+mode.String(), func(t *testing.T) {
				dir := t.TempDir()
				data := content(1, 100)
				mustGet(t, testStore(t, Options{Dir: dir, Verify: mode}), data, new(source).fill(data))
				must(t, do(blobFile(dir, data)))
				s := testStore(t, Options{Dir: dir, Verify: mode})
				mustGet(t, s, data, noFill)
				var st unix.Stat_t
				if err := unix.Stat(blobFile(dir, data), &st); err != nil ||
					!layout.IsExact(sha256.Sum256(data), &st) {
					t.Errorf("mode and time were not restored: %+v, %v", st, err)
				}
			})
		}
	}
}

// Stat vouches for the length that it reports: readers are shown it and see nothing beyond it.
func TestStatOfDamaged(t *testing.T) {
	t.Parallel()
	for name, d := range damages {
		for kind, change := range map[string]func(*limits){"whole": func(*limits) {}, "chunks": tiny} {
			if kind == "chunks" && !d.cheap {
				continue // a chunk is checked when it is read; the sidecar says how long the blob is
			}
			t.Run(name+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				data, other := content(1, 100), content(2, 100)
				for _, b := range [][]byte{data, other} {
					mustGet(t, testStore(t, Options{Dir: dir}, change), b, new(source).fill(b))
				}
				d.do(t, blobFile(dir, data), blobFile(dir, other))
				if n, ok := testStore(t, Options{Dir: dir}, change).Stat(sha256.Sum256(data)); ok {
					t.Errorf("Stat says %d bytes", n)
				}
			})
		}
	}
}

// A power cut leaves a name, the right mode and time, and less content: no length comes of it.
func TestStatAfterPowerCut(t *testing.T) {
	t.Parallel()
	for kind, change := range map[string]func(*limits){"whole": func(*limits) {}, "chunks": tiny} {
		for _, size := range []int64{0, 1, 17, 99} {
			dir := t.TempDir()
			data := content(1, 100)
			mustGet(t, testStore(t, Options{Dir: dir}, change), data, new(source).fill(data))
			cut(t, blobFile(dir, data), size)
			must(t, os.Chtimes(blobFile(dir, data), time.Now(), layout.Stamp(sha256.Sum256(data))))
			s := testStore(t, Options{Dir: dir}, change)
			if n, ok := s.Stat(sha256.Sum256(data)); ok || s.Stats().Damaged != 1 {
				t.Errorf("%s, %d bytes left: Stat says %d, %v; %d damaged", kind, size, n, ok,
					s.Stats().Damaged)
			}
		}
	}
}

// Damage that appears while the file is open: a read that meets it fetches the blob again, for each
// of the readers.
func TestDamageUnderReader(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, path string){
		"short":   func(t *testing.T, path string) { cut(t, path, 50) },
		"altered": func(t *testing.T, path string) { rewrite(t, path, 60, []byte("????")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data := content(1, 100)
			key := sha256.Sum256(data)
			mustGet(t, testStore(t, Options{Dir: dir}, tiny), data, new(source).fill(data))
			s := testStore(t, Options{Dir: dir}, tiny)
			src := &source{}
			var files [3]*File
			for i := range files {
				f, err := s.Open(context.Background(), key, 100, src.fill(data))
				must(t, err)
				files[i] = f
			}
			p := make([]byte, 8)
			if n, err := files[0].ReadAt(p, 4); err != nil || !bytes.Equal(p[:n], data[4:12]) {
				t.Fatalf("%d, %v", n, err)
			}
			do(t, blobFile(dir, data))
			for _, f := range files {
				if err := errors.Join(same(f, data), f.Close()); err != nil {
					t.Error(err)
				}
			}
			if st := s.Stats(); src.fills.Load() != 1 || st.Damaged != 1 {
				t.Errorf("%d fills, %+v", src.fills.Load(), st)
			}
			if n := s.Stats().OpenFiles; n != 1 {
				t.Errorf("%d files open", n)
			}
		})
	}
}

// Damage that comes back is an error, not a loop.
func TestDamageAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := content(1, 100)
	must(t, func() error {
		s := testStore(t, Options{Dir: dir}, tiny)
		defer s.Close()
		return get(s, data, new(source).fill(data))
	}())
	s := testStore(t, Options{Dir: dir, Verify: disk.VerifyAlways}, tiny)
	fills := 0
	f, err := s.Open(context.Background(), sha256.Sum256(data), 100, func(_ context.Context, w Sink) error {
		fills++
		return writePieces(w, data, 0)
	})
	must(t, err)
	defer f.Close()
	p := make([]byte, 100)
	rewrite(t, blobFile(dir, data), 60, []byte("????"))
	if _, err := f.ReadAt(p, 0); err != nil || fills != 1 {
		t.Fatalf("%d fills, %v", fills, err)
	}
	rewrite(t, blobFile(dir, data), 60, []byte("????"))
	if _, err := f.ReadAt(p, 0); !errors.Is(err, ErrDamaged) || fills != 1 {
		t.Errorf("%d fills, %v, want ErrDamaged", fills, err)
	}
	mustGet(t, s, content(3, 10), new(source).fill(content(3, 10)))
}
