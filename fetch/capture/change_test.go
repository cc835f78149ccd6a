package capture

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestChange changes a file after it was opened, in every way there is.
func TestChange(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		size   int
		change func(path string) error // nil: nothing
		want   error
	}{
		{"nothing", 100, nil, nil},
		{"nothing, large", smallFile + 1, nil, nil},
		{"appended", 100, func(p string) error { return write(p, os.O_APPEND, "x") }, errChanged},
		{"appended, large", smallFile + 1,
			func(p string) error { return write(p, os.O_APPEND, "x") }, errChanged},
		{"appended to nothing", 0, func(p string) error { return write(p, os.O_APPEND, "x") }, errChanged},
		{"cut", 100, func(p string) error { return os.Truncate(p, 99) }, errChanged},
		{"cut, large", smallFile + 1, func(p string) error { return os.Truncate(p, 10) }, errChanged},
		{"same size", 100, func(p string) error { return write(p, 0, "x") }, errChanged},
		{"same size and mtime", 100, func(p string) error {
			st, err := os.Stat(p)
			return errors.Join(err, write(p, 0, "x"), os.Chtimes(p, time.Time{}, st.ModTime()))
		}, errChanged},
		{"mode", 100, func(p string) error { return os.Chmod(p, 0o600) }, errChanged},
		{"replaced", 100, func(p string) error { return errors.Join(write(p+"2", os.O_CREATE, "x"), os.Rename(p+"2", p)) }, errChanged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := put(t, "file", strings.Repeat("a", tt.size))
			f, st := look(t, dir, "file")
			defer f.file.Close()
			file := must(f.open("file", st, unix.O_NONBLOCK))(t)
			r := &regular{file: file, path: dir + "/file", before: *st}
			defer r.close()
			time.Sleep(20 * time.Millisecond) // a tick of the file system's clock
			if tt.change != nil {
				if err := tt.change(dir + "/file"); err != nil {
					t.Fatal(err)
				}
			}
			s := must(newStore(t.TempDir(), Options{}.level(), 1))(t)
			defer s.close()
			_, err := r.store(t.Context(), s, make([]byte, smallFile+1))
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) ||
				err != nil && !strings.Contains(err.Error(), dir+"/file") {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if left := must(filepath.Glob(s.dir + "/blob-*"))(t); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestSwap puts something else under a name between the look at it and its opening. A FIFO must not block.
func TestSwap(t *testing.T) {
	tests := map[string]func(path string) error{
		"fifo":    func(p string) error { return unix.Mkfifo(p, 0o666) },
		"symlink": func(p string) error { return os.Symlink("/etc/passwd", p) },
		"folder":  func(p string) error { return os.Mkdir(p, 0o755) },
		"file":    func(p string) error { return write(p, os.O_CREATE, "other") },
		"nothing": func(string) error { return nil },
	}
	for name, swap := range tests {
		t.Run(name, func(t *testing.T) {
			dir := put(t, "file", "x", "keep", "y")
			f, st := look(t, dir, "file")
			defer f.file.Close()
			// The name keep has the inode, so that no new file can get it.
			if err := errors.Join(os.Rename(dir+"/file", dir+"/keep"), swap(dir+"/file")); err != nil {
				t.Fatal(err)
			}
			file, err := f.open("file", st, unix.O_NONBLOCK)
			if !errors.Is(err, errChanged) || file != nil {
				t.Errorf("got %v, %v", file, err)
			}
		})
	}
}

func look(t *testing.T, dir, name string) (folder, *unix.Stat_t) {
	t.Helper()
	f := folder{file: must(os.Open(dir))(t), real: dir}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
		t.Fatal(err)
	}
	return f, &st
}

func write(path string, flags int, data string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(data)
	return errors.Join(err, f.Close())
}

// TestGrowing captures a log that is written all the time.
func TestGrowing(t *testing.T) {
	t.Parallel()
	dir := put(t, "sub/log", strings.Repeat("line\n", 2<<20))
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				close(stopped)
				return
			default:
				_ = write(dir+"/sub/log", os.O_APPEND, "more\n")
			}
		}
	}()
	bad(t, dir, Options{}, "sub/log", "changed")
	close(stop)
	<-stopped
}

// TestUnreadable is about a user without rights; root lends its process to one.
func TestUnreadable(t *testing.T) {
	for _, name := range []string{"sub/secret", "sub"} {
		dir := put(t, "sub/secret", "x")
		path := filepath.Join(dir, name)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		into := t.TempDir()
		// The folder of a test's temporary folders is its owner's alone.
		if err := errors.Join(os.Chmod(filepath.Dir(into), 0o755), os.Chmod(into, 0o777)); err != nil {
			t.Fatal(err)
		}
		root := os.Geteuid() == 0
		if root {
			if err := syscall.Setresuid(-1, 65534, -1); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Capture(t.Context(), dir, into, Options{})
		if root {
			if err := syscall.Setresuid(-1, 0, -1); err != nil {
				t.Fatal(err)
			}
		}
		os.Chmod(path, 0o755)
		if !errors.Is(err, ErrSource) || !errors.Is(err, os.ErrPermission) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestMemory captures many files in one folder and a file larger than the bound.
func TestMemory(t *testing.T) {
	const bound = 160 << 20 // bytes; 8,000 files and 256 MiB are there to capture
	dir := t.TempDir()
	for i := range 8_000 {
		if err := os.WriteFile(dir+"/a-long-enough-name-"+strconv.Itoa(i),
			[]byte(strconv.Itoa(i%1000)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(write(dir+"/zeros", os.O_CREATE, ""),
		os.Truncate(dir+"/zeros", 256<<20)); err != nil {
		t.Fatal(err)
	}
	var peak atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapAlloc))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	r, err := Capture(t.Context(), dir, t.TempDir(), Options{})
	cancel()
	<-done
	if err != nil || r.Files != 8_001 || r.Blobs != 1000+1+8 {
		t.Errorf("%+v, %v", r, err)
	}
	if peak.Load() > bound {
		t.Errorf("%d MiB at the peak, the bound is %d", peak.Load()>>20, bound>>20)
	}
	t.Logf("%d MiB at the peak", peak.Load()>>20)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	into := t.TempDir()
	_, err := Capture(ctx, put(t, "a", "x", "b/c", "y"), into, Options{})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrSource) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(into + "/manifest.json"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a manifest: %v", err)
	}
}
