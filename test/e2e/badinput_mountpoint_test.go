package e2e

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestBadMountpoint: places where nothing may be mounted. Nothing is fetched for them either.
func TestBadMountpoint(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(t *testing.T, e *harness.Env) (dir string, options []string)
		says    string
	}{
		{"does not exist", func(_ *testing.T, e *harness.Env) (string, []string) { return e.Path("none"), nil }, "no such file"},
		{"is a file", func(_ *testing.T, e *harness.Env) (string, []string) { return e.WriteFile("file", nil, 0o644), nil }, "not a folder"},
		{"is below a file", func(_ *testing.T, e *harness.Env) (string, []string) {
			return e.WriteFile("file", nil, 0o644) + "/d", nil
		}, "not a directory"},
		{"is a dangling link", func(t *testing.T, e *harness.Env) (string, []string) {
			link := e.Path("link")
			if err := os.Symlink("none", link); err != nil {
				t.Fatal(err)
			}
			return link, nil
		}, "no such file"},
		{"is not empty", func(t *testing.T, e *harness.Env) (string, []string) {
			dir := e.MakeDir("full")
			e.WriteFile("full/kept\x1b[31m", []byte("x"), 0o600)
			return dir, nil
		}, "not empty"},
		{"is a device", func(_ *testing.T, _ *harness.Env) (string, []string) { return "/dev/null", nil }, "not a folder"},
		{"is empty text", func(_ *testing.T, _ *harness.Env) (string, []string) { return "", nil },
			"mount point"},
		{"contains the cache", func(t *testing.T, e *harness.Env) (string, []string) {
			dir := e.MakeDir("around")
			return dir, []string{"--cache-dir", dir + "/cache"}
		}, "inside each other"},
		{"lies inside the cache", func(t *testing.T, e *harness.Env) (string, []string) {
			dir := e.MakeDir("cachedir/m")
			return dir, []string{"--cache-dir", filepath.Dir(dir)}
		}, "inside each other"},
		{"is the cache, by a link", func(t *testing.T, e *harness.Env) (string, []string) {
			dir, link := e.MakeDir("cachedir"), e.Path("link")
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			return dir, []string{"--cache-dir", link}
		}, "inside each other"},
		{"is a full file system", func(t *testing.T, e *harness.Env) (string, []string) {
			dir := e.Tmpfs("tmpfs", 1<<20)
			e.WriteFile("tmpfs/kept", []byte("x"), 0o600)
			return dir, nil
		}, "not empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				ref := e.Push(harness.Fixture(t, "minimal"))
				dir, options := tt.prepare(t, e)
				code := 6
				if dir == "" {
					code = 1
				}
				refused(t, e, code, []string{tt.says}, append(options, ref, dir)...)
				if n := len(e.Registry().Log()); n > 0 {
					t.Errorf("%d requests for a mount that could not be", n)
				}
			})
		})
	}
}

// TestMountpointInLayout: a mount point that holds the image's own folder, or lies inside it, would
// wait for itself.
func TestMountpointInLayout(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		layout := e.CopyFixture("layout")
		inside := e.MakeDir("fixtures/layout/m")
		refused(t, e, 6, []string{"inside each other"}, "oci-layout:"+layout+":basic", inside)
		refused(t, e, 6, []string{"inside each other"}, "oci-layout:"+layout+":basic", filepath.Dir(layout))
	})
}

// TestEmptyFileSystem: an empty file system of another kind is a mount point as good as any.
func TestEmptyFileSystem(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		ref, dir := e.Push(harness.Fixture(t, "minimal")), e.Tmpfs("tmpfs", 1<<20)
		e.Run(ref, dir).Want(t, 0)
		e.Sh(`test -e "$1"/manifest.json`, dir).Want(t, 0)
		e.Run("umount", dir).Want(t, 0)
		if lines := harness.MountLines(t, dir); len(lines) != 1 || lines[0].Type != "tmpfs" {
			t.Errorf("the file system below is gone: %v", lines)
		}
	})
}

// TestAlreadyMounted: a live mount of ours is kept, as it is, with the command that would end it; also when
// its daemon does not answer.
func TestAlreadyMounted(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		first, second := e.Push(harness.Fixture(t, "basic")), e.Push(harness.Fixture(t, "minimal"))
		m := e.Mount(first)
		for _, ref := range []string{first, second} {
			refused(t, e, 6, []string{"already mounted", "umount " + m.Dir, first}, ref, m.Dir)
		}
		refused(t, e, 6, nil, second, m.Path("world"))
		m.Compare("world/fs", harness.Want(t, "basic"))
		if err := syscall.Kill(m.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, time.Minute, "the stop", func() bool { return harness.State(m.PID) == "T" })
		refused(t, e, 6, []string{"does not answer"}, second, m.Dir)
		if err := syscall.Kill(m.PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		m.Compare("world/fs", harness.Want(t, "basic"))
	})
}

// TestStaleMount: what a killed daemon left is cleared and mounted over, also twice over; when the new mount
// fails for another reason, the stale one stays.
func TestStaleMount(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		first, second := e.Push(harness.Fixture(t, "basic")), e.Push(harness.Fixture(t, "minimal"))
		m := e.Mount(first)
		m.Read("manifest.json")
		for range 2 {
			m.Kill9()
			if _, err := m.ReadErr("world/fs"); err == nil {
				t.Fatal("the mount lives on without its daemon")
			}
			refused(t, e, 5, []string{"404"}, e.Registry().Ref("team/app", "none"), m.Dir)
			e.Run(second, m.Dir).Want(t, 0, "stale")
			m = e.Mounted(second, m.Dir)
			m.Compare("world/fs", harness.Want(t, "minimal"))
		}
		m.Kill9()
		e.Run("umount", m.Dir).Want(t, 0)
		if lines := harness.MountLines(t, m.Dir); len(lines) > 0 {
			t.Errorf("umount left %v", lines)
		}
	})
}

// otherFuse mounts a file system of another program on dir. A live one answers the kernel's greeting and
// every further request with ENOSYS; a silent one answers nothing; end makes it stale.
func otherFuse(t *testing.T, dir string, silent bool) (end func()) {
	t.Helper()
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0) // in blocking mode, as the kernel wants it
	if err != nil {
		t.Fatal(err)
	}
	fd := int(dev.Fd())
	data := "rootmode=40000,user_id=0,group_id=0,allow_other,fd=" + strconv.Itoa(fd)
	if err := unix.Mount("other", dir, "fuse.other", 0, data); err != nil {
		t.Fatal(err)
	}
	if !silent {
		go answerFuse(fd)
	}
	end = sync.OnceFunc(func() {
		abortFuse(t, dir)
		dev.Close()
	})
	t.Cleanup(end)
	return end
}

// answerFuse serves a connection until it is aborted (linux/fuse.h, protocol 7.31).
func answerFuse(fd int) {
	request := make([]byte, 1<<20)
	for {
		n, err := syscall.Read(fd, request)
		if err == syscall.EINTR || err == syscall.ENOENT {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		opcode, unique := binary.NativeEndian.Uint32(request[4:]), request[8:16]
		answer := binary.NativeEndian.AppendUint32(nil, 16)
		answer = binary.NativeEndian.AppendUint32(answer, ^uint32(unix.ENOSYS)+1)
		if opcode == 26 { // INIT
			answer = make([]byte, 16+64)
			binary.NativeEndian.PutUint32(answer, uint32(len(answer)))
			binary.NativeEndian.PutUint32(answer[16:], 7)
			binary.NativeEndian.PutUint32(answer[20:], 31)
			binary.NativeEndian.PutUint32(answer[36:], 4096) // max_write
			copy(answer[8:16], unique)
		} else {
			answer = append(answer, unique...)
		}
		if _, err := syscall.Write(fd, answer); err != nil && err != syscall.ENOENT {
			return
		}
	}
}

// abortFuse ends the connection of a mount by way of the kernel's control files (fuse.rst, "Aborting a
// filesystem connection"); the mount stays, stale.
func abortFuse(t *testing.T, dir string) {
	t.Helper()
	const control = "/sys/fs/fuse/connections"
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 5 || f[4] != dir || !strings.Contains(line, "fuse.other") {
			continue
		}
		minor := f[2][strings.IndexByte(f[2], ':')+1:]
		abort := filepath.Join(control, minor, "abort")
		if _, err := os.Stat(abort); err != nil {
			unix.Mount("fusectl", control, "fusectl", 0, "") // EBUSY: another test was faster
		}
		if err := os.WriteFile(abort, []byte("1"), 0); err != nil {
			t.Error(err)
		}
	}
}

// TestOtherProgram: a live or hung FUSE mount of another program is left alone, and a stale one is an error
// with the command that clears it.
func TestOtherProgram(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		silent bool
		stale  bool
		says   []string
	}{
		{"live", false, false, []string{"in use", "other"}},
		{"silent", true, false, []string{"does not answer", "other", "umount -l"}},
		{"stale", false, true, []string{"stale", "other", "fusermount3 -u"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			harness.Each(t, func(t *testing.T, e *harness.Env) {
				ref, dir := e.Push(harness.Build(t, imgbuild.Spec{})), e.MountDir()
				end := otherFuse(t, dir, tt.silent)
				if tt.stale {
					end()
				}
				start := time.Now()
				refused(t, e, 6, append(tt.says, dir), ref, dir)
				if took := time.Since(start); took > hangBound/2 {
					t.Errorf("it took %v", took)
				}
				refused(t, e, 6, []string{"not a mount of pfmount"}, "umount", dir)
			})
		})
	}
}
