package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStalled has 200 readers wait for one blob while everything else goes on; then all get it.
func TestStalled(t *testing.T) {
	m := testMount(t, newImage(t, file("slow", "at last"), file("fast", "at once"), dir("d")), Options{})
	release := m.blobs.stall(t, "at last")
	type result struct {
		got string
		err error
	}
	results := make(chan result, 200)
	for range cap(results) {
		go func() {
			fd, err := unix.Open(m.path("world/fs/slow"), unix.O_RDONLY|unix.O_DIRECT, 0) // a READ for each
			if err != nil {
				results <- result{err: err}
				return
			}
			defer unix.Close(fd)
			buf := make([]byte, 100)
			n, err := unix.Pread(fd, buf, 0)
			results <- result{string(buf[:max(n, 0)]), err}
		}()
	}
	m.blobs.wait(t, 200)
	buffered := make(chan result, 20)
	for range cap(buffered) {
		go func() { b, err := os.ReadFile(m.path("world/fs/slow")); buffered <- result{string(b), err} }()
	}
	if got := m.read(t, "world/fs/fast"); got != "at once" {
		t.Errorf("another file: %q", got)
	}
	if _, err := os.ReadDir(m.path("world/fs")); err != nil {
		t.Error(err)
	}
	m.lstat(t, "world/fs/slow")
	if err := unix.Statfs(m.dir, new(unix.Statfs_t)); err != nil {
		t.Error(err)
	}
	release()
	for range cap(results) {
		if r := <-results; r.err != nil || r.got != "at last" {
			t.Fatalf("a waiting reader: %q, %v", r.got, r.err)
		}
	}
	for range cap(buffered) {
		if r := <-buffered; r.err != nil || r.got != "at last" {
			t.Fatalf("a waiting buffered reader: %q, %v", r.got, r.err)
		}
	}
}

// TestManyStalled has more files stall than go-fuse would have asynchronous requests by default.
func TestManyStalled(t *testing.T) {
	entries := []entry{file("fast", "at once")}
	for i := range 60 {
		entries = append(entries, file(fmt.Sprintf("s%02d", i), fmt.Sprintf("slow %d", i)))
	}
	m := testMount(t, newImage(t, entries...), Options{})
	var releases []func()
	done := make(chan error, 60)
	for i := range 60 {
		releases = append(releases, m.blobs.stall(t, fmt.Sprintf("slow %d", i)))
		go func() { _, err := os.ReadFile(m.path(fmt.Sprintf("world/fs/s%02d", i))); done <- err }()
	}
	m.blobs.wait(t, 60)
	if got := m.read(t, "world/fs/fast"); got != "at once" {
		t.Errorf("another file: %q", got)
	}
	for _, release := range releases {
		release()
	}
	for range 60 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestKilled kills one of two readers of a blob that does not come: it is gone, and the other one
// gets the blob.
func TestKilled(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string // before the file
	}{
		{"asynchronous read", []string{"cat"}},
		{"synchronous read", []string{"dd", "iflag=direct", "status=none", "bs=4096"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := testMount(t, newImage(t, file("a", "content")), Options{})
			release := m.blobs.stall(t, "content")
			name := m.path("world/fs/a")
			if test.args[0] == "dd" {
				name = "if=" + name
			}
			victim := exec.Command(test.args[0], append(test.args[1:], name)...)
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			m.blobs.wait(t, 1)
			survivor := exec.Command(test.args[0], append(test.args[1:], name)...)
			out := make(chan string, 1)
			go func() { b, err := survivor.Output(); out <- fmt.Sprint(string(b), err) }()
			if test.args[0] == "dd" {
				m.blobs.wait(t, 2)
			}
			start := time.Now()
			victim.Process.Kill()
			victim.Wait()
			if took := time.Since(start); took > time.Minute {
				t.Errorf("the killed reader was gone after %v", took)
			}
			select {
			case got := <-out:
				t.Fatalf("the other reader ended with the killed one: %s", got)
			case <-time.After(2 * killPoll):
			}
			release()
			if got := <-out; got != "content<nil>" {
				t.Errorf("the other reader: %s", got)
			}
			if found := m.log.with("level=ERROR"); found != nil {
				t.Errorf("a killed reader is no failure: %s", found)
			}
		})
	}
}

// TestSignalHandled has a reader be sent signals that it handles: it reads on and never sees EINTR.
func TestSignalHandled(t *testing.T) {
	t.Parallel()
	m := testMount(t, newImage(t, file("a", "content")), Options{})
	release := m.blobs.stall(t, "content")
	caught := make(chan os.Signal, 1000)
	signal.Notify(caught, unix.SIGALRM)
	defer signal.Stop(caught)

	var tid atomic.Int64
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signals are for this thread, and it is not used again
		fd, err := unix.Open(m.path("world/fs/a"), unix.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			result <- err
			return
		}
		defer unix.Close(fd)
		tid.Store(int64(unix.Gettid()))
		buf := make([]byte, 100)
		n, err := unix.Pread(fd, buf, 0)
		if err == nil && string(buf[:n]) != "content" {
			err = fmt.Errorf("read %q", buf[:n])
		}
		result <- err
	}()
	m.blobs.wait(t, 1)
	for range 30 {
		if err := unix.Tgkill(os.Getpid(), int(tid.Load()), unix.SIGALRM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case err := <-result:
		t.Fatalf("the read ended before its bytes were there: %v", err)
	default:
	}
	release()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestKilledAfterSignal kills a reader that has handled another signal in the same read: the kernel
// says so once only.
func TestKilledAfterSignal(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "content")), Options{})
	m.blobs.stall(t, "content")
	// dd handles SIGUSR1 by printing what it has copied so far.
	reader := exec.Command("dd", "iflag=direct", "status=none", "bs=4096", "if="+m.path("world/fs/a"))
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	m.blobs.wait(t, 1)
	reader.Process.Signal(unix.SIGUSR1)
	time.Sleep(2 * killPoll)
	m.blobs.wait(t, 1)
	start := time.Now()
	reader.Process.Kill()
	reader.Wait()
	if took := time.Since(start); took > time.Minute {
		t.Errorf("the killed reader was gone after %v", took)
	}
	m.blobs.wait(t, 0)
}

func TestKillPending(t *testing.T) {
	for _, test := range []struct {
		name, status string
		want         bool
	}{
		{"none", "Name:\tcat\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\tffffffffffffffff\n", false},
		{"thread", "SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n", true},
		{"process", "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n", true},
		{"others", "SigPnd:\tfffffffffffffeff\nShdPnd:\tfffffffffffffeff\nSigIgn:\t0000000000000100\n", false},
		{"among others", "ShdPnd:\t0000000000002100\n", true},
		{"nonsense", "SigPnd:\t-1\nShdPnd", false},
		{"empty", "", false},
	} {
		if got := killPending([]byte(test.status)); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestKilledLooksUp(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		pid  uint32
		want bool
	}{
		{"this process", uint32(os.Getpid()), false},
		{"a process that is gone", uint32(gone.Process.Pid), true},
		{"no process", 0, true},
	} {
		if got := killed(test.pid); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// TestWaiter ends a waiter in every way.
func TestWaiter(t *testing.T) {
	self := uint32(os.Getpid())
	closed := make(chan struct{})
	close(closed)
	for _, test := range []struct {
		name   string
		waiter func(g *drain) *waiter
		end    func(g *drain) // what happens while it waits
		err    error          // of the context
		why    error
	}{
		{"limit", func(g *drain) *waiter { return &waiter{drain: g, pid: self, limit: 10 * time.Millisecond} }, nil, context.DeadlineExceeded, errSizeWait},
		{"killed", func(g *drain) *waiter { return &waiter{drain: g, cancel: closed} }, nil,
			context.Canceled, errKilled},
		{"dead", func(g *drain) *waiter {
			g.dead = func() bool { return true }
			return &waiter{drain: g, pid: self, cancel: closed}
		}, nil, context.Canceled, errKilled},
		{"stopped", func(g *drain) *waiter { return &waiter{drain: g, pid: self} },
			func(g *drain) { g.stop(10 * time.Millisecond) }, context.Canceled, errStopping},
		{"stopped at once", func(g *drain) *waiter { return &waiter{drain: g, pid: self} },
			func(g *drain) { g.stop(time.Hour); g.stop(0) }, context.Canceled, errStopping},
		{"stopped before", func(g *drain) *waiter { g.stop(time.Hour); return &waiter{drain: g, pid: self} }, nil, context.Canceled, errStopping},
		{"stopped, after a signal",
			func(g *drain) *waiter { return &waiter{drain: g, pid: self, cancel: closed} },
			func(g *drain) { g.stop(0) }, context.Canceled, errStopping},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newDrain()
			w := test.waiter(g)
			done := w.Done()
			if test.end != nil {
				if err := w.Err(); err != nil {
					t.Errorf("ended before there was a reason: %v", err)
				}
				test.end(g)
			}
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("it waits on")
			}
			if err := w.Err(); !errors.Is(err, test.err) {
				t.Errorf("Err: %v, want %v", err, test.err)
			}
			if err := w.explain(fmt.Errorf("open: %w", w.Err())); !errors.Is(err, test.why) {
				t.Errorf("because of %v, want %v", err, test.why)
			}
			w.end()
			select {
			case <-g.stop(0):
			case <-time.After(time.Minute):
				t.Error("the drain is not empty")
			}
		})
	}
}

// TestWaiterGoesOn has a caller that is alive get a signal: nothing ends.
func TestWaiterGoesOn(t *testing.T) {
	g := newDrain()
	cancel := make(chan struct{})
	w := &waiter{drain: g, pid: uint32(os.Getpid()), cancel: cancel}
	done := w.Done()
	close(cancel)
	select {
	case <-done:
		t.Errorf("ended: %v", w.why)
	case <-time.After(3 * killPoll):
	}
	w.end()
	select {
	case <-done:
	default:
		t.Error("still open after the end")
	}
	if err := w.explain(context.Canceled); errno(err) == unix.EINTR {
		t.Error("somebody else's cancelled context would be EINTR")
	}
}

// TestGateGivesUp counts the drain as empty although a call does not leave.
func TestGateGivesUp(t *testing.T) {
	g := newDrain()
	if err := g.enter(); err != nil {
		t.Fatal(err)
	}
	idle := g.stop(0)
	select {
	case <-idle:
	case <-time.After(time.Minute):
		t.Fatal("waits for a call that never ends")
	}
	g.leave()
	if err := g.enter(); !errors.Is(err, errStopping) {
		t.Errorf("enter: %v, want %v", err, errStopping)
	}
}
