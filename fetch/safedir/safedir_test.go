package safedir

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safedir/safedirtest"
)

const stranger = safedirtest.Stranger

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// place makes a directory of this process's, below which the tests change owners and modes.
func place(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	return dir
}

// as runs f with the rights of a user, on a thread that ends with it.
func as(uid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		id := uintptr(uid)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 && os.Geteuid() != uid {
			done <- e
			return
		}
		done <- f()
	}()
	return <-done
}

// TestOpen has every way in which a path can be another user's to divert, and those in which it
// cannot.
func TestOpen(t *testing.T) {
	if !safedirtest.CanChown(t) {
		return
	}
	type prepare = func(base string) error
	mode := func(m fs.FileMode) prepare { return func(b string) error { return os.Chmod(b+"/d", m) } }
	link := func(to, name string) prepare {
		return func(b string) error { return os.Symlink(strings.ReplaceAll(to, "BASE", b), b+"/"+name) }
	}
	foreign := func(b string) error { return os.Chown(b+"/d", stranger, -1) }
	hard := func(b string) error { return os.Link(b+"/l", b+"/d/l") }
	foreignLink := func(name string) prepare {
		return func(b string) error { return os.Lchown(b+"/"+name, stranger, -1) }
	}
	all := func(steps ...prepare) prepare {
		return func(b string) (err error) {
			for _, f := range steps {
				err = errors.Join(err, f(b))
			}
			return err
		}
	}
	for _, tt := range []struct {
		name       string
		make       func(base string) error
		path       string
		flags      Flag
		root, user error // as root, and as an ordinary user; nil: opened
	}{
		{"plain", nil, "d", 0, nil, nil},
		{"missing", nil, "d/none", 0, fs.ErrNotExist, fs.ErrNotExist},
		{"missing below a file", nil, "file/none", Create, unix.ENOTDIR, unix.ENOTDIR},
		{"sticky", mode(0o777 | os.ModeSticky), "d/e", 0, nil, nil},
		{"for all", mode(0o777), "d/e", 0, ErrUnsafe, nil},
		{"for all, shared", mode(0o777), "d/e", Shared, nil, nil},
		{"for a group", mode(0o775), "d/e", 0, nil, nil},
		{"stranger's", foreign, "d", 0, ErrUnsafe, nil},
		{"stranger's above", foreign, "d/e", 0, ErrUnsafe, nil},
		{"link", link("d/e", "l"), "l", 0, nil, nil},
		{"absolute link", link("BASE/d", "l"), "l/e", 0, nil, nil},
		{"link up", link("e/..", "d/l"), "d/l/e", 0, nil, nil},
		{"link to itself", link("l", "l"), "l", 0, unix.ELOOP, unix.ELOOP},
		{"link to nowhere", link("x", "l"), "l", 0, fs.ErrNotExist, fs.ErrNotExist},
		{"stranger's link", all(link("d", "l"), foreignLink("l")), "l/e", Shared, ErrUnsafe, ErrUnsafe},
		{"stranger's link in his directory", all(link("e", "d/l"), foreignLink("d/l"), foreign),
			"d/l", 0, ErrUnsafe, nil},
		{"root's link that anybody put there", all(link("e", "l"), hard, mode(0o777|os.ModeSticky)),
			"d/l", 0, ErrUnsafe, ErrUnsafe},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := place(t)
			must(t, os.MkdirAll(base+"/d/e", 0o755), os.WriteFile(base+"/file", nil, 0o600))
			if tt.make != nil {
				must(t, tt.make(base))
			}
			for uid, want := range map[int]error{0: tt.root, stranger + 1: tt.user} {
				err := as(uid, func() error {
					d, err := Open(filepath.Join(base, tt.path), uid, tt.flags)
					if err == nil {
						err = d.Close()
					}
					return err
				})
				if !errors.Is(err, want) || (want == nil) != (err == nil) {
					t.Errorf("user %d: %v, want %v", uid, err, want)
				}
			}
		})
	}
}

// TestOnBehalf: root goes where a user may have changed the path only when it acts for that user.
func TestOnBehalf(t *testing.T) {
	if !safedirtest.CanChown(t) {
		return
	}
	dir := place(t) + "/d"
	must(t, os.Mkdir(dir, 0o700), os.Chown(dir, stranger, -1))
	for uid, want := range map[int]error{0: ErrUnsafe, stranger: nil, stranger + 1: ErrUnsafe} {
		d, err := Open(dir, uid, 0)
		if !errors.Is(err, want) {
			t.Errorf("for %d: %v, want %v", uid, err, want)
		}
		if err == nil {
			must(t, d.Private(), d.Close())
		}
	}
	d, err := Open(place(t), stranger, 0) // root's, which serves any user
	must(t, err)
	if err := d.Private(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("root's directory is private to another user: %v", err)
	}
	must(t, d.Close())
}

func TestCreate(t *testing.T) {
	base := place(t)
	d, err := Open(base+"/a/b/c", os.Geteuid(), Create)
	must(t, err, d.Private())
	must(t, os.Chmod(base+"/a/b/c", 0o720))
	if err := d.Private(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("mode 0720 is private: %v", err)
	}
	must(t, d.Close())
	for _, name := range []string{"a", "a/b"} {
		if st, err := os.Stat(filepath.Join(base, name)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

// TestFiles: only a regular file that the user can rely on is opened, nothing is waited for, and
// what happens to the path of the directory does not matter.
func TestFiles(t *testing.T) {
	base := place(t)
	must(t, os.Mkdir(base+"/d", 0o700))
	d, err := Open(base+"/d", os.Geteuid(), 0)
	must(t, err)
	defer d.Close()
	must(t, os.Rename(base+"/d", base+"/moved"), os.Mkdir(base+"/d", 0o700))
	f, err := d.OpenFile("new", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(t, err)
	_, err = f.WriteString("text")
	must(t, err, f.Close(), d.Rename("new", "old"))
	if text, err := os.ReadFile(base + "/moved/old"); err != nil || string(text) != "text" {
		t.Errorf("in the directory that was opened: %q, %v", text, err)
	}
	secret := base + "/secret"
	l, err := net.Listen("unix", base+"/moved/socket")
	must(t, err)
	defer l.Close()
	must(t, os.WriteFile(secret, []byte("s"), 0o600), os.Mkdir(base+"/moved/dir", 0o700),
		os.Symlink(secret, base+"/moved/link"), os.Symlink("x", base+"/moved/dangling"),
		os.Link(base+"/moved/old", base+"/moved/hard"), unix.Mkfifo(base+"/moved/fifo", 0o600))
	refused := []string{"link", "dangling", "hard", "old", "fifo", "dir", "socket"}
	if safedirtest.CanChown(t) {
		other := base + "/moved/other"
		must(t, os.WriteFile(other, nil, 0o666), os.Chown(other, stranger, -1))
		must(t, unix.Mknod(base+"/moved/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		refused = append(refused, "other", "null")
	}
	for _, name := range refused {
		for _, flags := range []int{os.O_RDONLY, os.O_CREATE | os.O_WRONLY | os.O_TRUNC} {
			if f, err := d.OpenFile(name, flags, 0o600); !errors.Is(err, ErrUnsafe) {
				t.Errorf("%s: %v, %v", name, f, err)
			}
		}
	}
	for _, name := range []string{"", ".", "..", "../secret", "/etc/passwd", "dir/x"} {
		if _, err := d.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			t.Errorf("%q was opened", name)
		}
	}
	must(t, d.Remove("link"))
	if _, err := d.Stat("link"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "s" {
		t.Errorf("the link's target: %q, %v", text, err)
	}
}

// TestOpenParent: a file may stand behind symlinks of its user's.
func TestOpenParent(t *testing.T) {
	base := place(t)
	must(t, os.MkdirAll(base+"/d/e", 0o755),
		os.Symlink("d/e/file", base+"/one"), os.Symlink(base+"/one", base+"/two"))
	for path, want := range map[string]string{
		"file": "/file", "d/file": "/d/file", "one": "/d/e/file", "two": "/d/e/file",
		"d/../two": "/d/e/file",
	} {
		d, name, err := OpenParent(base+"/"+path, os.Geteuid(), 0)
		must(t, err)
		if got := filepath.Join(d.path, name); got != base+want {
			t.Errorf("%s: got %s, want %s", path, got, base+want)
		}
		must(t, d.Close())
	}
	if _, _, err := OpenParent("/", os.Geteuid(), 0); !errors.Is(err, unix.EISDIR) {
		t.Errorf("/: %v", err)
	}
}

// TestDescriptors: no way through Open keeps a descriptor.
func TestDescriptors(t *testing.T) {
	base := place(t)
	must(t, os.Symlink("nowhere", base+"/l"), os.Symlink("self", base+"/self"),
		os.WriteFile(base+"/file", nil, 0o600))
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(names)
	}
	before := count()
	for range 50 {
		for _, path := range []string{"", "l", "self", "file", "file/x", "none/x"} {
			if d, err := Open(filepath.Join(base, path), os.Geteuid(), 0); err == nil {
				must(t, d.Close())
			}
		}
	}
	if after := count(); after > before+5 { // the runtime may have opened some
		t.Errorf("%d descriptors, then %d", before, after)
	}
}
