package fusefs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mmapChild prints the content of a file as a mapping shows it.
func mmapChild(name string) int {
	f, err := os.Open(name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fi, err := f.Stat()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Stdout.Write(b)
	return 0
}

// ways are the ways to read a whole file, each by a process that opens it for the first time.
var ways = map[string]func(name string) (string, error){
	"read": func(name string) (string, error) {
		b, err := os.ReadFile(name)
		return string(b), err
	},
	"cat": func(name string) (string, error) {
		b, err := exec.Command("cat", name).Output()
		return string(b), err
	},
	"sendfile": sendfile,
	"mmap": func(name string) (string, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "FUSEFS_TEST_MMAP="+name)
		b, err := cmd.Output()
		return string(b), err
	},
	"stat": func(name string) (string, error) { // for the length
		fi, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		return testDiff[:min(int(fi.Size()), len(testDiff))], nil
	},
	"seek to the end": func(name string) (string, error) {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		n, err := f.Seek(0, io.SeekEnd)
		return testDiff[:min(int(n), len(testDiff))], err
	},
}

// sendfile copies a file to a pipe inside the kernel.
func sendfile(name string) (string, error) {
	in, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp("", "sendfile")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	for {
		n, err := unix.Sendfile(int(out.Fd()), int(in.Fd()), nil, 1<<20)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
	}
	b, err := os.ReadFile(out.Name())
	return string(b), err
}

// TestUnknownSize reads a file of unknown size in every way, each time as the first access.
func TestUnknownSize(t *testing.T) {
	for way, read := range ways {
		t.Run(way, func(t *testing.T) {
			m := testMount(t, newImage(t), Options{})
			if _, err := os.ReadDir(m.path("model")); err != nil {
				t.Fatal(err)
			}
			got, err := read(m.path("model/diff.json"))
			if err != nil || got != testDiff {
				t.Errorf("%q, %v, want %q", got, err, testDiff)
			}
			opened := m.blobs.opened(testDiff)
			hex := fmt.Sprintf("%x", sha256.Sum256([]byte(testDiff)))
			for _, name := range []string{"model/diff.json", "blobs/sha256/" + hex[:2] + "/" + hex} {
				if size := m.lstat(t, name).Size; size != int64(len(testDiff)) {
					t.Errorf("%s: size %d, want %d", name, size, len(testDiff))
				}
			}
			if n := m.blobs.opened(testDiff); n != opened {
				t.Errorf("the size was asked for again, by opening the blob %d times", n-opened)
			}
		})
	}
}

// TestUnknownSizeFails has the blob of unknown size fail, and then come.
func TestUnknownSizeFails(t *testing.T) {
	for way, read := range ways {
		t.Run(way, func(t *testing.T) {
			m := testMount(t, newImage(t), Options{})
			m.blobs.change(testDiff, func(b *fakeBlob) { b.fail = errors.New("registry down") })
			if got, err := read(m.path("model/diff.json")); err == nil {
				t.Errorf("read %q from a blob that fails", got)
			}
			if len(m.log.with("model/diff.json", "registry down", "getattr", "sha256:")) == 0 {
				t.Error("no log line")
			}
			m.blobs.change(testDiff, func(b *fakeBlob) { b.fail = nil })
			if got, err := read(m.path("model/diff.json")); err != nil || got != testDiff {
				t.Errorf("afterwards: %q, %v", got, err)
			}
		})
	}
}

// TestUnknownSizeWaits has the size come later than a stat may wait.
func TestUnknownSizeWaits(t *testing.T) {
	m := testMount(t, newImage(t), Options{SizeWait: 300 * time.Millisecond})
	release := m.blobs.stall(t, testDiff)
	start := time.Now()
	_, err := os.Stat(m.path("model/diff.json"))
	if took := time.Since(start); !errors.Is(err, unix.EIO) || took < 300*time.Millisecond {
		t.Errorf("stat: %v after %v, want EIO after 300 ms", err, took)
	}
	release()
	if got := m.read(t, "model/diff.json"); got != testDiff {
		t.Errorf("afterwards: %q", got)
	}
}

// TestReadAt reads pieces, cached and not, directly and through the page cache.
func TestReadAt(t *testing.T) {
	var b strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&b, "%06d\n", i)
	}
	content := b.String() // 420,000 bytes
	size := len(content)
	m := testMount(t, newImage(t, file("a", content)), Options{})
	for _, flags := range []int{unix.O_RDONLY | unix.O_DIRECT, unix.O_RDONLY} {
		for _, name := range []string{"world/fs/a", "manifest.json"} {
			want := content
			if name != "world/fs/a" {
				raw, _ := m.ix.Inline(m.find(t, name))
				want = string(raw)
			}
			fd, err := unix.Open(m.path(name), flags, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range [][2]int{{0, 1}, {0, 10}, {3, 4093}, {4095, 2}, {131071, 3},
				{size - 5, 10}, {size - 1, 1}, {size, 10}, {size + 100_000, 5}, {100, 300_000}, {0,
					size + 1}} {
				off, n := at[0], at[1]
				buf := make([]byte, n)
				got, err := unix.Pread(fd, buf, int64(off))
				expect := want[min(off, len(want)):min(off+n, len(want))]
				if err != nil || string(buf[:max(got, 0)]) != expect {
					t.Errorf("%s: flags %o: %d bytes at %d: got %d, %v, want %d", name, flags, n,
						off, got, err, len(expect))
				}
			}
			unix.Close(fd)
		}
	}
}

// TestReadBehindEnd opens no blob for nothing.
func TestReadBehindEnd(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "12345"), file("empty", "")), Options{})
	for name, off := range map[string]int64{"world/fs/a": 4096, "world/fs/empty": 0} {
		fd, err := unix.Open(m.path(name), unix.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Pread(fd, make([]byte, 512), off); n != 0 || err != nil {
			t.Errorf("%s: %d, %v, want 0", name, n, err)
		}
		unix.Close(fd)
	}
	if n := m.blobs.opened(""); n != 0 {
		t.Errorf("%d blobs were opened", n)
	}
}

// TestDamage has blobs that cannot be read, for once and for good: the reader gets all bytes or EIO.
func TestDamage(t *testing.T) {
	const content = "0123456789"
	whole := func(p []byte, off int64) (int, error) { return strings.NewReader(content).ReadAt(p, off) }
	for _, test := range []struct {
		name  string
		read  func(p []byte, off int64, nth int) (int, error)
		size  int64
		good  bool
		opens int
	}{
		{name: "sound", read: func(p []byte, off int64, _ int) (int, error) { return whole(p, off) }, size: 10, good: true, opens: 1},
		{name: "full read with EOF", read: func(p []byte, off int64, _ int) (int, error) {
			n, _ := whole(p, off)
			return n, io.EOF
		}, size: 10, good: true, opens: 1},
		{name: "short once", read: func(p []byte, off int64, nth int) (int, error) {
			if nth == 1 {
				n, _ := whole(p[:4], off)
				return n, io.EOF
			}
			return whole(p, off)
		}, size: 10, good: true, opens: 2},
		{name: "error once", read: func(p []byte, off int64, nth int) (int, error) {
			if nth == 1 {
				return 0, errors.New("chunk 0: damaged")
			}
			return whole(p, off)
		}, size: 10, good: true, opens: 2},
		{name: "always short", read: func(p []byte, off int64, _ int) (int, error) { return whole(p[:4], off) }, size: 10},
		{name: "always damaged",
			read: func([]byte, int64, int) (int, error) { return 0, errors.New("chunk 0: damaged") }, size: 10},
		{name: "shorter than signed",
			read: func(p []byte, off int64, _ int) (int, error) { return whole(p, off) }, size: 9},
		{name: "longer than signed",
			read: func(p []byte, off int64, _ int) (int, error) { return whole(p, off) }, size: 11},
	} {
		t.Run(test.name, func(t *testing.T) {
			im := newImage(t, file("a", content))
			im.blobs.change(content,
				func(b *fakeBlob) { b.read, b.size = test.read, func() int64 { return test.size } })
			m := testMount(t, im, Options{})
			got, err := os.ReadFile(m.path("world/fs/a"))
			if test.good && (err != nil || string(got) != content) {
				t.Errorf("%q, %v, want %q", got, err, content)
			}
			if test.good && m.blobs.opened(content) != test.opens {
				t.Errorf("opened %d times, want %d", m.blobs.opened(content), test.opens)
			}
			if !test.good && (!errors.Is(err, unix.EIO) || len(got) != 0) {
				t.Errorf("%q, %v, want EIO", got, err)
			}
		})
	}
}

// TestFailure has a blob fail for 200 readers: all get EIO, the log gets few lines, and later reads
// succeed.
func TestFailure(t *testing.T) {
	for _, test := range []struct {
		err  error
		want error
	}{
		{errors.New("connection refused"), unix.EIO},
		{fmt.Errorf("cache: %w", unix.ENOSPC), unix.ENOSPC},
		{fmt.Errorf("cache: %w", unix.EDQUOT), unix.ENOSPC},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			im := newImage(t, file("a", "content"), file("b", "other"))
			m := testMount(t, im, Options{Image: "reg/img:tag"})
			im.blobs.change("content", func(b *fakeBlob) { b.fail = test.err })
			errs := make(chan error, 200)
			start := time.Now()
			for range cap(errs) {
				go func() { _, err := os.ReadFile(m.path("world/fs/a")); errs <- err }()
			}
			for range cap(errs) {
				if err := <-errs; !errors.Is(err, test.want) {
					t.Errorf("read: %v, want %v", err, test.want)
				}
			}
			lines := m.log.with("reg/img:tag", "world/fs/a", "sha256:", test.err.Error(), "level=ERROR")
			if most := 1 + int(time.Since(start)/quietTime); len(lines) == 0 || len(lines) > most {
				t.Errorf("%d log lines in %v, want 1 to %d", len(lines), time.Since(start), most)
			}
			if got := m.read(t, "world/fs/b"); got != "other" {
				t.Errorf("another file: %q", got)
			}
			im.blobs.change("content", func(b *fakeBlob) { b.fail = nil })
			if got := m.read(t, "world/fs/a"); got != "content" {
				t.Errorf("afterwards: %q", got)
			}
		})
	}
}

func TestIoctl(t *testing.T) {
	m := testMount(t, newImage(t, file("a", "x")), Options{})
	for _, name := range []string{"world/fs/a", "world/fs"} {
		f, err := os.Open(m.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); !errors.Is(err, unix.ENOTTY) {
			t.Errorf("%s: TCGETS: %v, want ENOTTY", name, err)
		}
		f.Close()
	}
	if _, err := unix.Lgetxattr(m.path("world/fs/a"), "user.x", make([]byte, 10)); !errors.Is(err,
		unix.EOPNOTSUPP) {
		t.Errorf("getxattr: %v, want EOPNOTSUPP", err)
	}
}
