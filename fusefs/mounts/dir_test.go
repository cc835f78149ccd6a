package mounts

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hold holds a directory until the test ends.
func hold(t *testing.T, dir string) *Dir {
	t.Helper()
	at, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close() })
	return at
}

func TestHold(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.MkdirAll(filepath.Join(real, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"real": nil, "real/d": nil, "none": fs.ErrNotExist, "file": unix.ENOTDIR,
		"file/d": unix.ENOTDIR, "link": ErrMoved, "link/d": ErrMoved,
	} {
		at, err := Hold(filepath.Join(dir, name))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil {
			at.Close()
		}
	}
	at := hold(t, real)
	if name, err := at.First(); name != "d" || err != nil {
		t.Errorf("first entry: %q, %v", name, err)
	}
	if _, err := hold(t, filepath.Join(real, "d")).First(); err != io.EOF {
		t.Errorf("an empty directory: %v, want io.EOF", err)
	}
}

// diversions are what the owner of the directory above can do to a mount point between its check
// and the mount.
var diversions = map[string]func(dir, away string) error{
	"renamed": func(dir, away string) error { return os.Rename(dir+"/p/m", away+"/m") },
	"renamed above": func(dir, away string) error {
		return os.Rename(dir+"/p", away+"/p")
	},
	"a link in its place": func(dir, away string) error {
		return errors.Join(os.Remove(dir+"/p/m"), os.Symlink(away, dir+"/p/m"))
	},
	"a link above": func(dir, away string) error {
		return errors.Join(os.Rename(dir+"/p", dir+"/q"), os.Mkdir(away+"/m", 0o755),
			os.Symlink(away, dir+"/p"))
	},
	"another directory": func(dir, _ string) error {
		return errors.Join(os.Rename(dir+"/p/m", dir+"/p/n"), os.Mkdir(dir+"/p/m", 0o755))
	},
	"removed": func(dir, _ string) error { return os.Remove(dir + "/p/m") },
	"covered": func(dir, _ string) error { return unix.Mount("tmpfs", dir+"/p/m", "tmpfs", 0, "size=64k") },
}

// TestAttachMoved diverts a mount point that is held: nothing is mounted, whether that is seen before
// the mount or only by where it came to lie.
func TestAttachMoved(t *testing.T) {
	t.Parallel()
	for name, divert := range diversions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, away := t.TempDir(), t.TempDir()
			if err := os.MkdirAll(dir+"/p/m", 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(dir+"/p/m", unix.MNT_DETACH) })
			at := hold(t, dir+"/p/m")
			if err := divert(dir, away); err != nil {
				t.Fatal(err)
			}
			a, err := Attach(at, Options{})
			moved := errors.Is(err, ErrMoved) || errors.Is(err, fs.ErrNotExist)
			if !moved || !errors.Is(err, ErrMountPoint) {
				t.Errorf("seen before: %v, want ErrMoved", err)
			}
			if err == nil {
				a.Undo()
			}
			for _, way := range []attacher{direct{}, helper{}} {
				a, err := attach(at, way, Options{Source: Subtype})
				if err == nil {
					a.Undo()
					t.Errorf("%T: mounted", way)
				}
				t.Logf("%T: %v", way, err)
				if left := ourMounts(t, dir, away); len(left) > 0 {
					t.Errorf("%T: left mounted: %q", way, left)
				}
			}
		})
	}
}

// ourMounts lists the mounts of pfmount in the directories.
func ourMounts(t *testing.T, dirs ...string) (points []string) {
	t.Helper()
	table, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table {
		if m.Ours() && slices.ContainsFunc(dirs,
			func(dir string) bool { return strings.HasPrefix(m.Point+"/", dir+"/") }) {
			points = append(points, m.Point)
		}
	}
	return points
}
