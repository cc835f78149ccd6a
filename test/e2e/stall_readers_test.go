package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// waiting gives a function that counts the requests that the kernel has sent to a mount and that are not
// answered. A FUSE connection has the minor number of its device as its name.
func waiting(t *testing.T, e *harness.Env, m *harness.Mount) func() int {
	t.Helper()
	var st unix.Stat_t
	if err := e.Do(func() error { return unix.Stat(m.Dir, &st) }); err != nil {
		t.Fatal(err)
	}
	control := e.MakeDir("fusectl")
	if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
		t.Fatal(err)
	}
	return func() int {
		data, err := os.ReadFile(fmt.Sprintf("%s/%d/waiting", control, unix.Minor(st.Dev)))
		if err != nil {
			t.Fatal(err)
		}
		return int(numbers(t, string(data))[0])
	}
}

// stalledSpec has 200 files below slow/ with as many contents as distinct says, and a file fast.
func stalledSpec(distinct int) imgbuild.Spec {
	spec := imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("fast", "0644", imgbuild.Text("fast\n"))}}
	for i := range 200 {
		spec.Entries = append(spec.Entries, imgbuild.File(fmt.Sprintf("slow/%03d", i), "0644",
			imgbuild.Text(fmt.Sprintf("slow %d\n", i%distinct))))
	}
	return spec
}

// Test200Readers: while 200 readers wait for stalled blobs, one or two hundred, a cached file reads, also
// past the kernel's cache, and folders list; then all 200 read right.
func Test200Readers(t *testing.T) {
	t.Parallel()
	for _, distinct := range []int{1, 200} {
		t.Run(fmt.Sprint(distinct, " blobs"), func(t *testing.T) {
			harness.Once(t, func(t *testing.T, e *harness.Env) {
				img := harness.Build(t, stalledSpec(distinct))
				ref, srv, hold := e.Push(img), e.Registry(), faultreg.NewHold()
				e.Run("cat", ref, "world/fs/fast").Want(t, 0)
				fast := img.WireOf("world/fs/fast")
				m := e.Mount(ref, "--stall-timeout", "5m")
				srv.On(faultreg.Match{Kind: faultreg.Blob,
					Where: func(x *faultreg.Exchange) bool { return x.Ref != fast }}, hold.Fault())
				count := waiting(t, e, m)
				var readers []*harness.Process
				for i := range 200 {
					readers = append(readers, e.Command("cat", m.Path(fmt.Sprintf("world/fs/slow/%03d", i))))
				}
				harness.Eventually(t, time.Minute, "200 waiting READs", func() bool { return count() >= 200 })
				for _, path := range []string{"world/fs/fast",
					"blobs/sha256/" + blobName(img.Digest("world/fs/fast"))} {
					if r := e.Command("timeout", "60", "cat",
						m.Path(path)).Wait(harness.Limit).Want(t, 0); r.Stdout != "fast\n" {
						t.Errorf("%s: %v", path, r)
					}
				}
				e.Command("timeout", "60", "ls", "-lR", m.Dir).Wait(harness.Limit).Want(t, 0)
				for _, p := range readers {
					if !p.Running() {
						t.Fatalf("a reader did not wait: %v", p.Wait(harness.Limit))
					}
				}
				hold.Release()
				for i, p := range readers {
					if r := p.Wait(harness.Limit).Want(t, 0); r.Stdout != fmt.Sprintf("slow %d\n",
						i%distinct) {
						t.Errorf("reader %d: %v", i, r)
					}
				}
				if peak := srv.Peak(); peak > 32 {
					t.Errorf("%d requests at once, the documented most is 32", peak)
				}
			})
		})
	}
}

// stalled mounts an image with one large file, begins a read of it by each command and waits until the
// download stands still.
func stalled(t *testing.T, e *harness.Env, commands ...[]string) (m *harness.Mount,
	readers []*harness.Process, hold *faultreg.Hold, sum string) {
	t.Helper()
	img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("f", "0644",
		imgbuild.Pattern{Seed: 1, Len: 3 << 20})}})
	ref := e.Push(img)
	m, hold = e.Mount(ref, "--stall-timeout", "5m"), faultreg.NewHold()
	rule := e.Registry().On(faultreg.Match{Ref: img.WireOf("world/fs/f")}, hold.After(1000))
	count := waiting(t, e, m)
	for _, c := range commands {
		readers = append(readers, e.Command(append(c, m.Path("world/fs/f"))...))
	}
	harness.Eventually(t, time.Minute, "the stalled download", func() bool {
		return hold.Waiting() == 1 && rule.Hits() == 1 && count() > 0
	})
	return m, readers, hold, strings.TrimPrefix(img.Digest("world/fs/f"), "sha256:")
}

// TestKilledReader: readers that wait on a stalled blob end at once by SIGKILL, SIGINT and SIGTERM,
// alone and in numbers; one that goes on waiting reads right when the registry goes on.
func TestKilledReader(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		cat := []string{"cat"}
		m, readers, hold, sum := stalled(t, e, cat, cat, cat, []string{"sha256sum"}, cat)
		for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM} {
			pid := readers[i].Cmd.Process.Pid
			readers[i].Signal(signal)
			// A bound on hanging; it takes a fifth of a second.
			harness.Eventually(t, time.Minute, fmt.Sprint("end by ", signal),
				func() bool { return !readers[i].Running() })
			if harness.Alive(pid) {
				t.Errorf("%v: process %d is still there", signal, pid)
			}
			if r := readers[i].Wait(time.Minute); r.Signal != signal {
				t.Errorf("ended by %v instead of %v", r.Signal, signal)
			}
		}
		if hold.Waiting() != 1 {
			t.Errorf("the download ended with its readers")
		}
		hold.Release()
		if r := readers[3].Wait(harness.Limit).Want(t, 0); r.Stdout[:64] != sum {
			t.Errorf("the reader that stayed: %v", r)
		}
		if r := readers[4].Wait(harness.Limit).Want(t, 0); harness.SHA256([]byte(r.Stdout)) != sum {
			t.Errorf("the other reader that stayed has %d bytes", len(r.Stdout))
		}
		e.Sh(`fusermount3 -u "$1"`, m.Dir).Want(t, 0)
		m.Gone()
	})
}

// alarmed reads sys.argv[1] by read(2) itself, with a handler for SIGALRM that interrupts system calls, and
// prints the hash, how often a read said EINTR, and whether the handler ran.
const alarmed = `
import ctypes, hashlib, os, signal, sys
c, ran, interrupted = ctypes.CDLL(None, use_errno=True), [], 0
signal.signal(signal.SIGALRM, lambda *_: ran.append(1))
signal.siginterrupt(signal.SIGALRM, True)
print('ready', flush=True)
fd, h = os.open(sys.argv[1], os.O_RDONLY), hashlib.sha256()
b = ctypes.create_string_buffer(1 << 20)
while True:
    n = c.read(fd, b, len(b))
    if n == 0: break
    if n < 0:
        if ctypes.get_errno() != 4: raise OSError(ctypes.get_errno(), 'read')
        interrupted += 1
    else:
        h.update(b.raw[:n])
print(h.hexdigest(), interrupted, bool(ran))
`

// TestSignalledReader: a reader that handles a signal while it waits reads on, and never sees
// EINTR; after that it can still be killed.
func TestSignalledReader(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		command := []string{"/usr/bin/python3", "-c", alarmed}
		_, readers, hold, sum := stalled(t, e, command, command)
		for _, p := range readers {
			harness.Eventually(t, time.Minute, "the handler", func() bool { return p.Stdout() == "ready\n" })
		}
		for range 20 {
			for _, p := range readers {
				p.Signal(syscall.SIGALRM)
			}
			time.Sleep(20 * time.Millisecond) // signals of one kind that come at once are one
		}
		for _, p := range readers {
			if !p.Running() {
				t.Fatalf("ended by a signal that it handles: %v", p.Wait(time.Minute))
			}
		}
		readers[1].Signal(syscall.SIGKILL)
		harness.Eventually(t, time.Minute, "end of the killed reader",
			func() bool { return !readers[1].Running() })
		hold.Release()
		if r := readers[0].Wait(harness.Limit).Want(t, 0); r.Stdout != "ready\n"+sum+" 0 True\n" {
			t.Errorf("the reader says %v, want %s, no EINTR, and that the handler ran", r, sum)
		}
	})
}
