package crash

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
)

// warnings counts the lines that daemons logged with WARN, that of the signature aside.
func warnings(e *harness.Env) (n int) {
	for line := range strings.Lines(e.Logs()) {
		// A copy is another program's namespace, which was made while the mount was there.
		if strings.Contains(line, "level=WARN") && !strings.Contains(line, "default key") &&
			!strings.Contains(line, "a copy of the mount") {
			n++
		}
	}
	return n
}

// ballast writes what the cache cannot evict until nothing more fits.
func ballast(t *testing.T, dir string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	piece := make([]byte, 64<<10)
	for err == nil {
		if _, err = f.Write(piece); err == nil {
			err = f.Sync()
		}
	}
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		t.Fatal(err)
	}
	return path
}

// TestFull: the cache's disk, or its user's quota, is smaller than the image: eviction makes room.
// Then there is nothing to evict: blobs up to 8 MiB come from memory, a larger one is ENOSPC, one
// warning of each kind tells. With room again all is as before.
func TestFull(t *testing.T) {
	for name, disk := range map[string]func(e *harness.Env) string{
		"quota": func(e *harness.Env) string { return e.Btrfs("disk", 16<<20).Dir },
		"ext4":  func(e *harness.Env) string { return e.LoopExt4("disk", 20<<20) },
		"tmpfs": func(e *harness.Env) string { return e.Tmpfs("disk", 16<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := imageRig(t)
			dir := disk(r.Env)
			r.cache = filepath.Join(dir, "cache")
			m := r.Mount(r.ref, "--cache-dir="+r.cache, "--cache-min-free=0")
			m.Compare("world/fs", r.want)
			m.Unmount()
			if n := warnings(r.Env); n > 0 {
				t.Errorf("%d warnings while eviction helps", n)
			}
			r.Run("cache", "clear", "--cache-dir="+r.cache).Want(t, 0)
			path := ballast(t, dir)

			m = r.Mount(r.ref, "--cache-dir="+r.cache, "--cache-min-free=0")
			r.served(t, m, unix.ENOSPC)
			if n := warnings(r.Env); n < 1 || n > 3 { // a blob, the folder for one, what was verified last
				t.Errorf("%d warnings on a full disk", n)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second) // a failure is answered for one second
			harness.DropCaches(t)
			m.Compare("world/fs", r.want)
			m.Unmount()
			a, err := Audit(r.cache)
			if err != nil || len(a.Torn) > 0 || a.Partial > 0 || a.Used > a.Usage || a.Blobs == 0 {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// TestDiskTurns: the cache's disk turns read-only, as ext4 does when it meets an error, or stops
// answering, under a mount that has some of the image cached. Small blobs are right, large ones
// right or a clean error; a few warnings tell.
func TestDiskTurns(t *testing.T) {
	for name, turn := range map[string]func(d *harness.Disk){
		"read-only": func(d *harness.Disk) { d.Remount("abort") },
		"dead":      func(d *harness.Disk) { d.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := imageRig(t)
			disk := r.Ext4("disk", 160<<20, "errors=remount-ro")
			r.cache = filepath.Join(disk.Dir, "cache")
			m := r.Mount(r.ref, "--cache-dir="+r.cache)
			for _, w := range r.want[:100] {
				if w.Kind == "file" {
					m.Read("world/fs/" + w.Path)
				}
			}
			turn(disk)
			if err := os.WriteFile(filepath.Join(disk.Dir, "x"), nil, 0o600); err == nil {
				t.Fatal("the disk still takes files")
			}
			r.served(t, m, unix.ENOSPC, unix.EIO)
			if n := warnings(r.Env); n < 1 || n > 5 {
				t.Errorf("%d warnings", n)
			}
			m.Unmount()
		})
	}
}

// served reads every file of a mount: what is small must be right, what is large right or one of
// these errors.
func (r *rig) served(t *testing.T, m *harness.Mount, errs ...error) {
	t.Helper()
	for _, w := range r.want {
		if w.Kind != "file" {
			continue
		}
		data, err := m.ReadErr("world/fs/" + w.Path)
		large := w.Size > 8<<20
		clean := false
		for _, e := range errs {
			clean = clean || errors.Is(err, e)
		}
		if err != nil && !(large && clean) {
			t.Errorf("%s: %v", w.Path, err)
		}
		if err == nil && harness.SHA256(data) != w.SHA256 {
			t.Errorf("%s: wrong content", w.Path)
		}
		if err == nil && large && errs[0] == unix.ENOSPC && len(errs) == 1 {
			t.Errorf("%s: no error on a full disk", w.Path)
		}
	}
}
