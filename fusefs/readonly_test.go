package fusefs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// changes are the system calls that would change something, on the names a (a file), d and h
// (directories, h is empty).
func changes(m *mount) map[string]func() error {
	p := func(name string) string { return m.path("world/fs/" + name) }
	open := func(name string, flags int) func() error {
		return func() error {
			fd, err := unix.Open(p(name), flags, 0o644)
			if err == nil {
				defer unix.Close(fd)
				_, err = unix.Write(fd, []byte("x"))
			}
			return err
		}
	}
	return map[string]func() error{
		"write":       open("a", unix.O_WRONLY),
		"read+write":  open("a", unix.O_RDWR),
		"append":      open("a", unix.O_WRONLY|unix.O_APPEND),
		"open trunc":  open("a", unix.O_WRONLY|unix.O_TRUNC),
		"create":      open("new", unix.O_WRONLY|unix.O_CREAT),
		"create new":  open("new", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL),
		"tmpfile":     open("d", unix.O_RDWR|unix.O_TMPFILE),
		"truncate":    func() error { return unix.Truncate(p("a"), 1) },
		"chmod":       func() error { return unix.Chmod(p("a"), 0o600) },
		"chown":       func() error { return unix.Chown(p("a"), 1, 1) },
		"lchown":      func() error { return unix.Lchown(p("l"), 1, 1) },
		"utimes":      func() error { return unix.Utimes(p("a"), make([]unix.Timeval, 2)) },
		"mkdir":       func() error { return unix.Mkdir(p("new"), 0o755) },
		"rmdir":       func() error { return unix.Rmdir(p("h")) },
		"unlink":      func() error { return unix.Unlink(p("a")) },
		"rename":      func() error { return unix.Rename(p("a"), p("new")) },
		"rename over": func() error { return unix.Rename(p("a"), p("b")) },
		"exchange": func() error {
			return unix.Renameat2(unix.AT_FDCWD, p("a"), unix.AT_FDCWD, p("b"), unix.RENAME_EXCHANGE)
		},
		"link":    func() error { return unix.Link(p("a"), p("new")) },
		"symlink": func() error { return unix.Symlink("a", p("new")) },
		"mkfifo":  func() error { return unix.Mkfifo(p("new"), 0o644) },
		"mknod":   func() error { return unix.Mknod(p("new"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) },
	}
}

// TestReadOnly tries every change as root, which also gets EROFS where it has made the mount writable.
func TestReadOnly(t *testing.T) {
	entries := []entry{file("a", "content"), file("b", "other"), dir("d"), file("d/x", "y"),
		dir("h"), link("l", "a")}
	m := testMount(t, newImage(t, entries...), Options{})
	check := func(how string) {
		for name, change := range changes(m) {
			if err := change(); !errors.Is(err, unix.EROFS) {
				t.Errorf("%s: %s: %v, want EROFS", how, name, err)
			}
		}
		checkSame(t, m.see(t, "world/fs"), shapes(entries))
	}
	check("as mounted")
	if err := unix.Setxattr(m.path("world/fs/a"), "user.x", []byte("1"), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("setxattr: %v, want EROFS", err)
	}
	if err := unix.Mount("", m.dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatalf("remount: %v", err)
	}
	check("remounted read-write")
}

// TestPermissions has the kernel check modes. Root passes all but the right to execute a file
// without an execute bit.
func TestPermissions(t *testing.T) {
	m := testMount(t, newImage(t, file("x", "#!/bin/sh\n").mode("0755"),
		file("plain", "#!/bin/sh\n")), Options{})
	for name, want := range map[string]error{"world/fs/x": nil, "world/fs/plain": unix.EACCES} {
		if err := unix.Access(m.path(name), unix.X_OK); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
