package cache

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// refuse lets a system call of this process fail from now on, as an old kernel or a container's
// profile would.
func refuse(call uint32, errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // no_new_privs belongs to the thread, the filter to all of them
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}

// helpRefused uses a cache without openat2: hits, fills, and the symlinks that openat2 would have
// kept out. DIR ERRNO
func helpRefused(args []string) error {
	if err := refuse(unix.SYS_OPENAT2, unix.Errno(helperNumber(args[1]))); err != nil {
		return err
	}
	if _, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{}); err != unix.Errno(helperNumber(args[1])) {
		return fmt.Errorf("openat2 is not refused: %v", err)
	}
	dir := args[0]
	old, link, shard := content(1, 100), content(2, 100), content(3, 100)
	s, err := tryStore(Options{Dir: dir})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := get(s, old, noFill); err != nil {
		return fmt.Errorf("a blob that is there: %w", err)
	}
	for _, data := range [][]byte{link, shard, content(4, 100)} {
		if err := get(s, data, new(source).fill(data)); err != nil {
			return err
		}
	}
	clearTable(s)
	err = errors.Join(
		os.Remove(blobFile(dir, link)), os.Symlink(blobFile(dir, old), blobFile(dir, link)),
		os.Rename(filepath.Dir(blobFile(dir, shard)), dir+"-moved"), os.Symlink(dir+"-moved",
			filepath.Dir(blobFile(dir, shard))))
	for _, data := range [][]byte{link, shard} {
		src := &source{}
		if e := get(s, data, src.fill(data)); e != nil || src.fills.Load() != 1 {
			err = errors.Join(err, fmt.Errorf("through a symlink: %d fills, %w", src.fills.Load(), e))
		}
	}
	if n := s.Stats().Damaged; n != 2 {
		err = errors.Join(err, fmt.Errorf("%d damaged, want 2", n))
	}
	return err
}

// Linux before 5.6 and old container profiles refuse openat2, by ENOSYS or EPERM. Nothing else changes.
func TestWithoutOpenat2(t *testing.T) {
	t.Parallel()
	for name, errno := range map[string]unix.Errno{"old kernel": unix.ENOSYS, "old profile": unix.EPERM} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			s := testStore(t, Options{Dir: dir})
			mustGet(t, s, content(1, 100), new(source).fill(content(1, 100)))
			if err := helper(t, "refused", dir, strconv.Itoa(int(errno))).Run(); err != nil {
				t.Error(err)
			}
			audit(t, dir)
		})
	}
}

// noLocks is a file system without flock. Over FUSE that is the server's business.
type noLocks struct {
	fuse.RawFileSystem
	answer fuse.Status
}

func (n noLocks) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status { return n.answer }

// helpNoLocks serves a folder without flock, says so, and ends with its standard input. FOLDER
// MOUNTPOINT ERRNO
func helpNoLocks(args []string) error {
	root, err := fs.NewLoopbackRoot(args[0])
	if err != nil {
		return err
	}
	raw := noLocks{fs.NewNodeFS(root, &fs.Options{}), fuse.Status(helperNumber(args[2]))}
	server, err := fuse.NewServer(raw, args[1], &fuse.MountOptions{EnableLocks: true})
	if err != nil {
		return err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return err
	}
	fmt.Println("mounted")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return server.Unmount()
}

// Without flock there is no way to share a folder: New says so and what to do.
func TestNoFlock(t *testing.T) {
	t.Parallel()
	for name, errno := range map[string]unix.Errno{"no call": unix.ENOSYS,
		"no support": unix.EOPNOTSUPP, "no lock server": unix.ENOLCK} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			real, dir := filepath.Join(base, "real"), filepath.Join(base, "mounted")
			must(t, errors.Join(os.Mkdir(real, 0o700), os.Mkdir(dir, 0o700)))
			cmd := helper(t, "nolocks", real, dir, strconv.Itoa(int(errno)))
			in, err := cmd.StdinPipe()
			must(t, err)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			defer func() { must(t, errors.Join(in.Close(), cmd.Wait())) }()
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "mounted\n" {
				t.Fatalf("helper said %q, %v", line, err)
			}
			for _, cache := range []string{dir, filepath.Join(dir, "cache")} {
				_, err = tryStore(Options{Dir: cache})
				if !errors.Is(err, errno) || !strings.Contains(err.Error(), "has no flock") ||
					!strings.Contains(err.Error(), "--cache-dir") {
					t.Errorf("New on %s: %v", cache, err)
				}
				if n := openDescriptors(t, dir); n != 0 {
					t.Errorf("%d descriptors left", n)
				}
			}
		})
	}
}
