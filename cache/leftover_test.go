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
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// leftovers make what a process that is killed between two system calls leaves in a folder, beside
// what TestLeftovers has: files and directories that lack their mode. name is that of the blob.
var leftovers = map[string]func(dir, name string) error{
	"failed fill": func(dir, name string) error {
		return closed(filepath.Join(dir, "tmp", name), "registry on fire", 0o200)
	},
	"partial file": func(dir, name string) error {
		return closed(filepath.Join(dir, "tmp", name), "half", 0)
	},
	"temporary file": func(dir, name string) error {
		return closed(filepath.Join(dir, "tmp", name+".sums.0123456789abcdef"), "half", 0)
	},
	"usage":      func(dir, _ string) error { return closed(dir+"/usage", "", 0) },
	"evict.lock": func(dir, _ string) error { return closed(dir+"/evict.lock", "", 0) },
	"record":     func(dir, _ string) error { return closed(dir+"/records/"+layout.RecordName("r"), "x", 0) },
	"tag":        func(dir, _ string) error { return closed(dir+"/CACHEDIR.TAG", "", 0o600) },
	"tmp":        func(dir, _ string) error { return os.Chmod(dir+"/tmp", 0) },
	"blobs":      func(dir, _ string) error { return os.Chmod(dir+"/blobs", 0) },
	"records":    func(dir, _ string) error { return os.Chmod(dir+"/records", 0) },
	"shard":      func(dir, name string) error { return os.Mkdir(dir+"/blobs/"+name[:2], 0) },
}

func closed(path, text string, mode fs.FileMode) error {
	_ = os.Remove(path)
	return errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode))
}

// byUser runs a helper under a user ID to which file modes apply: 65534 where the test runs as
// root. The helper's first argument is a folder of that user.
func byUser(t *testing.T, name string, args ...string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pfmount-cache-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cmd := helper(t, name, append([]string{filepath.Join(dir, "cache")}, args...)...)
	if os.Geteuid() == 0 {
		const nobody = 65534
		must(t, os.Chown(dir, nobody, nobody))
		cmd.Path = "/proc/self/exe" // the path of it may be closed to others
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}

// TestUnreadableLeftovers: whatever a killed process left, blob and record are read and kept, and
// Clear leaves no file.
func TestUnreadableLeftovers(t *testing.T) {
	t.Parallel()
	for name := range leftovers {
		for _, when := range []string{"start", "read", "clear"} {
			if when != "start" && (name == "tmp" || name == "blobs" || name == "tag") {
				continue // opened at the start and kept open
			}
			t.Run(name+"/"+when, func(t *testing.T) {
				t.Parallel()
				byUser(t, "leftover", name, when)
			})
		}
	}
}

// helpLeftover is one case of TestUnreadableLeftovers. DIR LEFTOVER WHEN
func helpLeftover(args []string) error {
	dir, leave, when := args[0], leftovers[args[1]], args[2]
	data := content(1, 9000)
	name := layout.BlobName(sha256.Sum256(data))
	s, err := tryStore(Options{Dir: dir})
	if err != nil {
		return err
	}
	old := filepath.Join(dir, "tmp", "old")
	if err := errors.Join(s.Close(), closed(old, "half", 0o400)); err != nil {
		return err
	}
	if when == "start" {
		if err := leave(dir, name); err != nil {
			return err
		}
	}
	if s, err = tryStore(Options{Dir: dir}); err != nil {
		return err
	}
	defer s.Close()
	if when != "start" { // after the janitor has looked
		if err := waitFor(func() bool { return !exists(old) }); err != nil {
			return err
		}
		if err := leave(dir, name); err != nil {
			return err
		}
	}
	if when == "clear" {
		if err := s.Clear(context.Background()); err != nil {
			return err
		}
		if err := empty(dir); err != nil {
			return err
		}
	}
	if err := used(s, dir, data); err != nil {
		return err
	}
	if err := s.Clear(context.Background()); err != nil {
		return err
	}
	return empty(dir)
}

// used fills a blob and a record and says whether the folder has them.
func used(s *Store, dir string, data []byte) error {
	src := new(source)
	if err := get(s, data, src.fill(data)); err != nil {
		return err
	}
	n, kept := s.Stats().MemoryBytes, exists(blobFile(dir, data))
	if src.fills.Load() != 1 || n != 0 || !kept {
		return fmt.Errorf("%d fills, %d bytes in memory, kept: %v", src.fills.Load(), n, kept)
	}
	if _, err := s.Record("r"); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record that was not put: %w", err)
	}
	if err := s.SetRecord("r", data); err != nil {
		return err
	}
	if got, err := s.Record("r"); err != nil || string(got) != string(data) {
		return fmt.Errorf("record: %d bytes, %w", len(got), err)
	}
	tag, err := os.ReadFile(filepath.Join(dir, "CACHEDIR.TAG"))
	if err == nil && string(tag) != layout.Tag {
		err = fmt.Errorf("the tag is %q", tag)
	}
	return err
}

// empty says whether a cleared folder holds any file but its own three.
func empty(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Dir(path) != dir {
			err = fmt.Errorf("%s is left", path)
		}
		return err
	})
}

// TestUmaskWhileFilling: a fill is waited for under a umask that takes from the owner, too.
func TestUmaskWhileFilling(t *testing.T) {
	t.Parallel()
	byUser(t, "closedfill")
}

// helpClosedFill lets two Stores want a blob. DIR
func helpClosedFill(args []string) error {
	data := content(1, 9000)
	if err := os.Mkdir(args[0], 0o700); err != nil {
		return err
	}
	unix.Umask(0o777)
	a, err := tryStore(Options{Dir: args[0]})
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := tryStore(Options{Dir: args[0]})
	if err != nil {
		return err
	}
	defer b.Close()
	src := new(source)
	got := make(chan error, 1)
	err = get(a, data, func(ctx context.Context, w Sink) error {
		partial := filepath.Join(args[0], "tmp", layout.BlobName(sha256.Sum256(data)))
		if err := os.Chmod(partial, 0); err != nil { // as in the moment after it was made
			return err
		}
		go func() { got <- get(b, data, noFill) }()
		if err := waitFor(func() bool { return readable(partial) }); err != nil {
			return err
		}
		return src.fill(data)(ctx, w)
	})
	if err := errors.Join(err, <-got); err != nil {
		return err
	}
	if n := src.fills.Load(); n != 1 {
		return fmt.Errorf("%d fills", n)
	}
	return nil
}

// readable says that the mode of a file lets its owner read it.
func readable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && strings.HasPrefix(info.Mode().String(), "-r")
}
