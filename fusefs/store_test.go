package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// TestStore: what was stored is read without a question, whole and to the byte, also at the end of
// a page; what the kernel does not know is an error, and afterwards all is as before.
func TestStore(t *testing.T) {
	contents := map[string]string{"one": "x", "page": strings.Repeat("0123456789abcdef", 256),
		"long": strings.Repeat("line\n", 20_001)}
	var entries []entry
	for name, content := range contents {
		entries = append(entries, file(name, content), file("unknown/"+name, content+"!"))
	}
	m := testMount(t, newImage(t, entries...), Options{})
	for name, content := range contents {
		if err := m.Store(m.find(t, "world/fs/unknown/"+name), []byte(content+"!")); !errors.Is(err,
			ErrUnknown) {
			t.Errorf("%s: stored for a file that the kernel has not heard of: %v", name, err)
		}
		m.lstat(t, "world/fs/"+name)
		if err := m.Store(m.find(t, "world/fs/"+name), []byte(content)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := m.read(t, "world/fs/"+name); got != content {
			t.Errorf("%s: %d bytes, not the %d that were stored", name, len(got), len(content))
		}
		if n := m.blobs.opened(content); n != 0 {
			t.Errorf("%s was asked for %d times", name, n)
		}
		if got := m.read(t, "world/fs/unknown/"+name); got != content+"!" {
			t.Errorf("unknown/%s: %d bytes", name, len(got))
		}
	}
	if err := m.Store(1<<31, []byte("x")); !errors.Is(err, ErrUnknown) {
		t.Errorf("stored for a row that there is not: %v", err)
	}
}

// TestStoreBesideRead: a file that a reader waits for is not stored. Where the kernel has sent its
// READ and the server has not taken it up yet, the READ goes first and gets its bytes.
func TestStoreBesideRead(t *testing.T) {
	content := strings.Repeat("waiting\n", 1000)
	m := testMount(t, newImage(t, file("f", content)), Options{})
	release := m.blobs.stall(t, content)
	read := make(chan string, 1)
	go func() {
		data, err := os.ReadFile(m.path("world/fs/f"))
		if err != nil {
			t.Error(err)
		}
		read <- string(data)
	}()
	m.blobs.wait(t, 1)
	stored := make(chan error, 1)
	row := m.find(t, "world/fs/f")
	if err := m.Store(row, []byte(content)); !errors.Is(err, ErrReading) {
		t.Errorf("stored beside a reader: %v", err)
	}
	go func() { stored <- m.store(row, []byte(content)) }()
	select {
	case err := <-stored:
		t.Errorf("stored before the reader had its answer: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	release()
	if got := <-read; got != content {
		t.Errorf("read %d bytes, want %d", len(got), len(content))
	}
	if err := <-stored; err != nil {
		t.Error(err)
	}
	eventually(t, 5*time.Second, "the end of the read", func() bool { return !m.fs.answering.has(row) })
	if err := m.Store(row, []byte(content)); err != nil {
		t.Errorf("stored after the reader: %v", err)
	}
}

// storeChild serves a mount on dir, and stores a file while a reader waits for it, until it is killed.
func storeChild(dir string) int {
	t := &childTB{}
	im := newImage(t, file("f", "waiting"))
	im.blobs.stall(t, "waiting")
	s, err := mountAt(dir, im, Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("mounted")
	im.blobs.wait(t, 1)
	fmt.Println("storing")
	_ = s.store(im.find(t, "world/fs/f"), []byte("waiting"))
	return 1
}

// childTB stands for a test in a process that is none.
type childTB struct{ testing.TB }

func (childTB) Helper()                   {}
func (childTB) Cleanup(func())            {}
func (childTB) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }
func (childTB) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (childTB) Error(args ...any)         { panic(fmt.Sprint(args...)) }
func (childTB) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// TestAbortStore: a process that is killed while the kernel has it wait in a Store stays, and its
// reader with it, until the connection is aborted.
func TestAbortStore(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_STORE="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	until := func(want string) {
		t.Helper()
		for said.Scan() {
			if said.Text() == want {
				return
			}
		}
		t.Fatalf("the child never said %q", want)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	until("mounted")
	m := tableTop(t, dir)
	read := make(chan error, 1)
	go func() {
		data, err := os.ReadFile(dir + "/world/fs/f")
		if err == nil && string(data) != "waiting" {
			err = fmt.Errorf("read %q", data)
		}
		read <- err
	}()
	until("storing")
	time.Sleep(300 * time.Millisecond) // it has entered the kernel
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }()
	select {
	case err := <-read:
		t.Logf("this kernel lets go of a Store by itself: %v", err)
	case <-time.After(500 * time.Millisecond):
		if err := mounts.Abort(m); err != nil {
			t.Fatal(err)
		}
		// The store goes on when the READ has failed, and may be in time for the reader to find its
		// bytes.
		if err := <-read; err != nil && !errors.Is(err, unix.ENOTCONN) &&
			!errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EIO) {
			t.Errorf("the reader got %v", err)
		}
	}
	<-gone
	if err := mounts.Abort(&mounts.Mount{ID: -1, Dev: "0:0", Point: t.TempDir()}); err == nil {
		t.Error("aborted where nothing is mounted")
	}
}
