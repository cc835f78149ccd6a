package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The cache folder is deleted, emptied, moved away or replaced while a Store uses it.
func TestFolderGone(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, dir string){
		"deleted": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) },
		"emptied": func(t *testing.T, dir string) {
			for _, sub := range []string{"blobs", "tmp", "records", "usage", "evict.lock", "CACHEDIR.TAG"} {
				must(t, os.RemoveAll(filepath.Join(dir, sub)))
			}
		},
		"tmp deleted":   func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "tmp"))) },
		"blobs deleted": func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "blobs"))) },
		"usage deleted": func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "usage"))) },
		"moved":         func(t *testing.T, dir string) { must(t, os.Rename(dir, dir+"-old")) },
		"replaced": func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+"-old"))
			must(t, os.Mkdir(dir, 0o700))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			s := testStore(t, Options{Dir: dir}, func(l *limits) { l.tick = 10 * time.Millisecond })
			before := content(1, 10_000)
			f, err := s.Open(context.Background(), sha256.Sum256(before), 10_000, new(source).fill(before))
			must(t, err)
			do(t, dir)
			for i := range 20 {
				data := content(i+2, 1000+i)
				mustGet(t, s, data, new(source).fill(data))
			}
			must(t, same(f, before))
			must(t, f.Close())
			eventually(t, "blobs are kept in the new folder", func() bool {
				s.table.clear()
				data := content(2, 1000)
				mustGet(t, s, data, new(source).fill(data))
				return exists(blobFile(dir, data))
			})
			must(t, s.SetRecord("name", []byte("data")))
			old := dir + "-old"
			if exists(old) {
				n := du(t, old)
				data := content(30, 50_000)
				mustGet(t, s, data, new(source).fill(data))
				if du(t, old) != n {
					t.Error("written outside the cache folder")
				}
			}
			audit(t, dir)
		})
	}
}

// A folder replaced by what New would refuse is not used: nothing is written to where it leads.
func TestFolderReplacedBySymlink(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, elsewhere := filepath.Join(base, "cache"), filepath.Join(base, "elsewhere")
	s := testStore(t, Options{Dir: dir}, func(l *limits) { l.tick = 10 * time.Millisecond })
	must(t, os.Mkdir(elsewhere, 0o700))
	must(t, os.RemoveAll(dir))
	must(t, os.Symlink(elsewhere, dir))
	for i := range 20 {
		data := content(i, 1000)
		mustGet(t, s, data, new(source).fill(data))
		time.Sleep(2 * time.Millisecond)
	}
	if err := s.SetRecord("name", nil); err == nil {
		t.Error("Put through a symlink")
	}
	if names, err := os.ReadDir(elsewhere); err != nil || len(names) > 0 {
		t.Errorf("written through a symlink: %v, %v", names, err)
	}
}

// What New would refuse is not used when it comes about under a Store either: nothing is written to
// it, blobs come from memory, one warning tells, and all is well when the folder is.
func TestFolderTurnsBad(t *testing.T) {
	t.Parallel()
	if !inNamespace(t) { // root there, for chown
		return
	}
	swap := func(name string) func(t *testing.T, dir, elsewhere string) {
		return func(t *testing.T, dir, elsewhere string) {
			must(t, os.Rename(filepath.Join(dir, name), filepath.Join(elsewhere, name)))
			must(t, os.Symlink(filepath.Join(elsewhere, name), filepath.Join(dir, name)))
		}
	}
	for name, do := range map[string]func(t *testing.T, dir, elsewhere string){
		"blobs a symlink": swap("blobs"),
		"tmp a symlink":   swap("tmp"),
		"group-writable":  func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir, 0o770)) },
		"blobs for all":   func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir+"/blobs", 0o777)) },
		"tmp for all":     func(t *testing.T, dir, _ string) { must(t, os.Chmod(dir+"/tmp", 0o777)) },
		"other's": func(t *testing.T, dir, _ string) {
			if os.Geteuid() == 0 {
				_ = os.Chown(dir, 1, 1) // a user namespace with one user has no other
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, elsewhere := filepath.Join(base, "cache"), filepath.Join(base, "elsewhere")
			must(t, os.Mkdir(elsewhere, 0o700))
			var log logs
			s := testStore(t, Options{Dir: dir, Log: log.logger()},
				func(l *limits) { l.tick = 10 * time.Millisecond })
			mustGet(t, s, content(0, 1000), new(source).fill(content(0, 1000)))
			do(t, dir, elsewhere)
			if st := (unix.Stat_t{}); name == "other's" && unix.Stat(dir, &st) == nil &&
				int(st.Uid) == os.Geteuid() {
				return
			}
			eventually(t, "the folder is given up", func() bool {
				return log.lines("deleted, replaced or opened to others") == 1 &&
					log.lines("cannot be used") == 1
			})
			before := tree(t, base)
			for i := range 20 {
				data := content(i, 1000)
				mustGet(t, s, data, new(source).fill(data))
			}
			if after := tree(t, base); after != before {
				t.Errorf("written to a folder that New would refuse:\n%s\nbefore:\n%s", after, before)
			}
			// The Store may make it anew in the middle of it.
			eventually(t, "the folder is gone", func() bool { return os.RemoveAll(dir) == nil })
			eventually(t, "blobs are kept again", func() bool {
				s.table.clear()
				mustGet(t, s, content(1, 1000), new(source).fill(content(1, 1000)))
				return exists(blobFile(dir, content(1, 1000)))
			})
			if n := log.lines("WARN"); n > 4 {
				t.Errorf("%d warnings", n)
			}
			audit(t, dir)
		})
	}
}

// tree lists what is below a folder, with sizes and times.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		}
		return err
	}))
	return b.String()
}

// newFolders are folders that New takes or refuses, and what it says.
var newFolders = map[string]struct {
	make func(t *testing.T, dir string) string
	want string // in the error; "" for none
}{
	"missing":        {func(t *testing.T, dir string) string { return dir }, ""},
	"missing parent": {func(t *testing.T, dir string) string { return dir + "/a/b/c" }, ""},
	"empty, 0755":    {func(t *testing.T, dir string) string { must(t, os.Mkdir(dir, 0o755)); return dir }, ""},
	"relative":       {func(t *testing.T, dir string) string { t.Chdir(filepath.Dir(dir)); return filepath.Base(dir) }, ""},
	"odd name":       {func(t *testing.T, dir string) string { return dir + "\n %s" }, ""},
	"own symlink": {func(t *testing.T, dir string) string {
		must(t, errors.Join(os.Mkdir(dir+"x", 0o700), os.Symlink(dir+"x", dir)))
		return dir
	}, ""},
	"dangling symlink": {func(t *testing.T, dir string) string { must(t, os.Symlink(dir+"x", dir)); return dir }, "symlink to nowhere"},
	"file":             {func(t *testing.T, dir string) string { must(t, os.WriteFile(dir, nil, 0o600)); return dir }, "remove it"},
	"group-writable": {func(t *testing.T, dir string) string {
		must(t, errors.Join(os.Mkdir(dir, 0), os.Chmod(dir, 0o770)))
		return dir
	}, "chmod 700"},
	"world-writable": {func(t *testing.T, dir string) string {
		must(t, errors.Join(os.Mkdir(dir, 0), os.Chmod(dir, 0o1777)))
		return dir
	}, "chmod 700"},
	"blobs a symlink": {func(t *testing.T, dir string) string {
		must(t, errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(dir+"x", 0o700),
			os.Symlink(dir+"x", dir+"/blobs")))
		return dir
	}, "symlink"},
	"tmp for all": {func(t *testing.T, dir string) string {
		must(t, errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(dir+"/tmp", 0), os.Chmod(dir+"/tmp", 0o777)))
		return dir
	}, "chmod 700"},
	"no name": {func(*testing.T, string) string { return "" }, "no folder"},
	"other's": {func(t *testing.T, dir string) string {
		must(t, os.Mkdir(dir, 0o700))
		if os.Chown(dir, 1, 1) != nil {
			return "/proc/1" // a user namespace with one user: root's, then
		}
		return dir
	}, "chown"},
	"other's symlink": {func(t *testing.T, dir string) string {
		must(t, errors.Join(os.Mkdir(dir+"x", 0o700), os.Symlink(dir+"x", dir)))
		if os.Lchown(dir, 1, 1) != nil {
			return "/proc/1/root"
		}
		return dir
	}, "symlink"},
}

func TestNew(t *testing.T) {
	if !inNamespace(t) { // root there, for chown
		return
	}
	for name, c := range newFolders {
		t.Run(name, func(t *testing.T) {
			dir := c.make(t, filepath.Join(t.TempDir(), "cache"))
			s, err := tryStore(Options{Dir: dir})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("error %v, want one with %q", err, c.want)
				}
				return
			}
			must(t, err)
			data := content(1, 10)
			mustGet(t, s, data, new(source).fill(data))
			must(t, s.Close())
			st, err := os.Stat(dir)
			if err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("mode %v, %v", st.Mode(), err)
			}
			if tag, err := os.ReadFile(filepath.Join(dir, "CACHEDIR.TAG")); err != nil ||
				!strings.HasPrefix(string(tag), "Signature: 8a477f597d28d172789f06886806bc55\n") {
				t.Errorf("CACHEDIR.TAG: %q, %v", tag, err)
			}
		})
	}
}

// A folder that holds other things keeps its mode.
func TestFolderWithOtherThings(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "home")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "letter"), nil, 0o644))
	s := testStore(t, Options{Dir: dir})
	must(t, s.Clear(context.Background()))
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if !exists(filepath.Join(dir, "letter")) {
		t.Error("Clear removed what is not the cache's")
	}
}

// TestUmask: whatever the umask, the cache is open to its owner and closed to other users.
func TestUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o777} {
		t.Run(fmt.Sprintf("%03o", mask), func(t *testing.T) {
			if !inNamespace(t) { // the umask belongs to the process
				return
			}
			dir := filepath.Join(t.TempDir(), "cache")
			data := content(1, 100)
			defer unix.Umask(unix.Umask(mask))
			s := testStore(t, Options{Dir: dir}, tiny)
			mustGet(t, s, data, new(source).fill(data))
			must(t, s.SetRecord("name", []byte("secret")))
			_, _, err := s.Prune(context.Background(), 1<<30)
			must(t, err)
			must(t, s.Close())
			must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := d.Info()
				if err == nil && (info.Mode().Perm()&0o077 != 0 || d.IsDir() && info.Mode().Perm() != 0o700) {
					t.Errorf("%s has mode %v", path, info.Mode())
				}
				return err
			}))
			mustGet(t, testStore(t, Options{Dir: dir}, tiny), data, noFill)
		})
	}
}
