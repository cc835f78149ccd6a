package harness

import (
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// User is the ordinary user of tests; test/setup.sh makes it.
const User = "pftest"

// ids are the numbers of the user that an Env runs as.
type ids struct{ uid, gid int }

// lookup gives the numbers of a user; "" is the user who runs the tests.
func lookup(t testing.TB, name string) ids {
	t.Helper()
	if name == "" {
		return ids{os.Geteuid(), os.Getegid()}
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("%v: run test/setup.sh as root", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return ids{uid, gid}
}

// other tells whether these are not the ids of this process.
func (u ids) other() bool { return u.uid != os.Geteuid() }

// credential is what a child process needs to be the user; nil when it is already.
func (u ids) credential() *syscall.Credential {
	if !u.other() {
		return nil
	}
	return &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid), Groups: []uint32{uint32(u.gid)}}
}

// do runs f with the user's ids, on a thread of its own that ends with f.
func (u ids) do(f func() error) error {
	if !u.other() {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here, with its ids
		if err := u.become(); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// become changes the ids of this thread only: golang.org/x/sys/unix's functions would change all threads'.
func (u ids) become() error {
	group := uint32(u.gid)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&group)), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid),
		uintptr(u.gid)); e != 0 {
		return fmt.Errorf("setresgid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid),
		uintptr(u.uid)); e != 0 {
		return fmt.Errorf("setresuid: %w", e)
	}
	return nil
}
