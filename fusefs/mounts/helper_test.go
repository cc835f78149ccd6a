package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHelperOptions(t *testing.T) {
	const fixed = "ro,nosuid,nodev,default_permissions,max_read=131072,subtype=pfmount,fsname="
	for _, test := range []struct {
		opts Options
		want string
	}{
		{Options{Source: "localhost/a:b"}, fixed + "localhost/a:b"},
		{Options{Source: `a,suid,dev\`}, fixed + `a\,suid\,dev\\`},
		{Options{Source: "x", AllowOther: true}, "allow_other," + fixed + "x"},
		{Options{Source: "x", NoExec: true}, "noexec," + fixed + "x"},
	} {
		if got := helperOptions(test.opts); got != test.want {
			t.Errorf("%+v: %s, want %s", test.opts, got, test.want)
		}
	}
}

// TestAttachWays mounts and unmounts in both ways, with the real fusermount3 as users do: the table
// shows what was asked for, what is in use is left alone, and a lazy unmount ends it.
func TestAttachWays(t *testing.T) {
	t.Parallel()
	for _, way := range []attacher{direct{}, helper{}} {
		for _, name := range []string{"localhost:5000/a/b:tag", `odd, name\with "all",suid,of=it`} {
			at := hold(t, t.TempDir())
			a, err := attach(at, way, Options{Source: name})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(a.FD) })
			t.Cleanup(func() { a.Undo() })
			m, err := At(at.Path())
			if err != nil || !m.Same(&a.Mount) || m.Source != name || !m.Ours() ||
				m.UID != os.Geteuid() || !strings.Contains(m.Super, "max_read=131072") &&
				!strings.Contains(m.Super, "default_permissions") {
				t.Errorf("%T: mount table: %+v, %v, want %q", way, m, err, name)
			}
			if err := a.InPlace(); err != nil {
				t.Errorf("%T: %v", way, err)
			}
			if err := detach(way, m, false); !errors.Is(err, ErrBusy) { // a.Root is open
				t.Errorf("%T: unmount: %v, want ErrBusy", way, err)
			}
			if err := detach(way, m, true); err != nil {
				t.Errorf("%T: %v", way, err)
			}
			a.Root.Close()
			if now, err := At(at.Path()); err != nil || now != nil {
				t.Errorf("%T: left: %+v, %v", way, now, err)
			}
			if err := Detach(m, false); err != nil {
				t.Errorf("%T: what is gone: %v", way, err)
			}
		}
	}
	none := hold(t, t.TempDir())
	none.path = filepath.Join(none.path, "none")
	_, err := helper{}.attach(none, Options{})
	if err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a mount point that is not there: %v, want the helper's own words", err)
	}
}

func TestFindHelper(t *testing.T) {
	for _, test := range []struct {
		have string // space-separated
		want string
	}{
		{"fusermount3 fusermount", "fusermount3"},
		{"fusermount", "fusermount"},
		{"/bin/fusermount3", "/bin/fusermount3"},
		{"/usr/bin/fusermount /bin/fusermount3", "/usr/bin/fusermount"},
		{"", ""},
	} {
		got, err := findHelper(func(name string) (string, error) {
			for _, have := range strings.Fields(test.have) {
				if have == name {
					return name, nil
				}
			}
			return "", errors.New("not found")
		})
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: %q, %v, want %q", test.have, got, err, test.want)
		}
		if err == nil {
			continue
		}
		for _, word := range []string{"fusermount3", "fusermount", "fuse3"} {
			if !errors.Is(err, ErrHelper) || !strings.Contains(err.Error(), word) {
				t.Errorf("%v: want ErrHelper that names %s", err, word)
			}
		}
	}
}

func TestAllowsOther(t *testing.T) {
	for conf, want := range map[string]bool{
		"":                                       false,
		"user_allow_other":                       true,
		"# x\nmount_max = 5\nuser_allow_other\n": true,
		"  user_allow_other  # why\n":            true,
		"#user_allow_other\n":                    false,
		"user_allow_others\n":                    false,
		"no user_allow_other\n":                  false,
	} {
		name := filepath.Join(t.TempDir(), "fuse.conf")
		if err := os.WriteFile(name, []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
		err := checkAllowOther(name)
		if (err == nil) != want {
			t.Errorf("%q: %v, want permission: %v", conf, err, want)
		}
		if err != nil && (!errors.Is(err, ErrAllowOther) || !strings.Contains(err.Error(), name) ||
			!strings.Contains(err.Error(), "user_allow_other")) {
			t.Errorf("%v: want ErrAllowOther that names the file and the line", err)
		}
	}
	if err := checkAllowOther(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrAllowOther) {
		t.Errorf("no such file: %v, want ErrAllowOther", err)
	}
}

func TestReceive(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if fd, err := receive(fds[0]); err == nil {
		t.Errorf("nothing was sent, and came as %d", fd)
	}
	if err := unix.Sendmsg(fds[1], []byte{0}, nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if fd, err := receive(fds[0]); err == nil {
		t.Errorf("no descriptor was sent, and came as %d", fd)
	}
	if err := unix.Sendmsg(fds[1], []byte{0}, unix.UnixRights(fds[1]), nil, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := receive(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v: not closed on exec", flags, err)
	}
}

func TestDeviceError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{unix.ENOENT, "modprobe fuse"},
		{unix.ENODEV, "modprobe fuse"},
		{unix.EACCES, "0666"},
		{unix.EPERM, "0666"},
		{unix.EMFILE, "too many open files"},
	} {
		err := deviceError(test.err)
		if !errors.Is(err, ErrDevice) || !errors.Is(err, test.err) {
			t.Errorf("%v: is not ErrDevice and %v", err, test.err)
		}
		for _, want := range []string{"/dev/fuse", test.want} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: says nothing of %q", err, want)
			}
		}
	}
}
