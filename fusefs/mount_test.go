package fusefs

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// TestMain lets the test binary be its own reader: a page fault on the mount would block the thread
// that has to answer it.
func TestMain(m *testing.M) {
	if name := os.Getenv("FUSEFS_TEST_MMAP"); name != "" {
		os.Exit(mmapChild(name))
	}
	if dir := os.Getenv("FUSEFS_TEST_STORE"); dir != "" {
		os.Exit(storeChild(dir))
	}
	os.Exit(m.Run())
}

// mount is a mount of a test.
type mount struct {
	*image
	*Server
	dir string
	log *lines
}

// testMount mounts the image until the test ends.
func testMount(t testing.TB, im *image, o Options) *mount {
	t.Helper()
	m := &mount{image: im, dir: t.TempDir(), log: new(lines)}
	o.Log = slog.New(slog.NewTextHandler(m.log, nil))
	s, err := mountAt(m.dir, im, o)
	if err != nil {
		t.Fatal(err)
	}
	m.Server = s
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
			if err := s.Detach(); err != nil {
				t.Errorf("detach: %v", err)
			}
		}
		select {
		case <-s.Done():
		case <-time.After(time.Minute):
			t.Error("the server goes on after the unmount")
		}
	})
	return m
}

// mountAt mounts the image at dir.
func mountAt(dir string, im *image, o Options) (*Server, error) {
	at, err := mounts.Hold(dir)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	return Mount(at, im.ix, im.blobs, o)
}

// tableTop returns the mount that is seen at dir.
func tableTop(t *testing.T, dir string) *mounts.Mount {
	t.Helper()
	table, err := mounts.Read()
	if err != nil {
		t.Fatal(err)
	}
	m := table.Top(dir)
	if m == nil {
		t.Fatalf("%s is not mounted", dir)
	}
	return m
}

// path returns the path of a file of the mount.
func (m *mount) path(name string) string { return filepath.Join(m.dir, name) }

// read returns a file's content.
func (m *mount) read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// lstat returns what the kernel says of a file.
func (m *mount) lstat(t testing.TB, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(m.path(name), &st); err != nil {
		t.Fatalf("lstat %s: %v", name, err)
	}
	return st
}

// lines is a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// with returns the lines that hold every one of the texts.
func (l *lines) with(texts ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.buf.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

func TestMountTable(t *testing.T) {
	for _, name := range []string{"", "localhost:5000/a/b:tag", `odd, name\with "all", of=it`,
		"with space\tand tab"} {
		t.Run(name, func(t *testing.T) {
			m := testMount(t, newImage(t), Options{Mount: mounts.Options{Source: name}})
			info := mountLine(t, m.dir)
			for _, opt := range []string{"ro", "nosuid", "nodev"} {
				if !strings.Contains(","+info.flags+",", ","+opt+",") {
					t.Errorf("flags %q: no %s", info.flags, opt)
				}
			}
			if !strings.Contains(info.super, "ro") || !strings.Contains(info.super, "default_permissions") {
				t.Errorf("options %q: want ro and default_permissions", info.super)
			}
			if strings.Contains(info.super, "allow_other") {
				t.Errorf("options %q: allow_other without having asked for it", info.super)
			}
			if info.kind != "fuse.pfmount" {
				t.Errorf("type %q", info.kind)
			}
			if want := name; info.source != want && !(want == "" && info.source == "pfmount") {
				t.Errorf("source %q, want %q", info.source, want)
			}
		})
	}
}

// tableLine is a line of the mount table.
type tableLine struct{ flags, kind, source, super string }

func mountLine(t *testing.T, dir string) tableLine {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		left, right, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		l, r := strings.Split(left, " "), strings.Split(right, " ")
		if mounts.Unescape(l[4]) == dir {
			return tableLine{flags: l[5], kind: r[0], source: mounts.Unescape(r[1]), super: r[2]}
		}
	}
	t.Fatalf("%s is not mounted", dir)
	return tableLine{}
}

func TestAllowOther(t *testing.T) {
	m := testMount(t, newImage(t), Options{Mount: mounts.Options{AllowOther: true}})
	if info := mountLine(t, m.dir); !strings.Contains(info.super, "allow_other") {
		t.Errorf("options %q: no allow_other", info.super)
	}
}

// TestOverlay has the mount as the lower layer of an overlay: writes go on top.
func TestOverlay(t *testing.T) {
	m := testMount(t, newImage(t, file("d/a", "lower"), file("d/b", "gone"), link("l", "d/a")), Options{})
	top := t.TempDir()
	// The upper layer cannot lie on an overlay, which test machines often have below their temporary files.
	if err := unix.Mount("tmpfs", top, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(top, unix.MNT_DETACH) })
	for _, name := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(top, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(top, "merged")
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", m.path("world/fs"), top, top)
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	out, err := exec.Command("sh", "-ec",
		`cd "$1"; cat l; echo more >>d/a; rm d/b; echo new >d/c; mv d e; cat e/a e/c; ls e`, "sh", merged).CombinedOutput()
	if want := "lowerlowermore\nnew\na\nc\n"; err != nil || string(out) != want {
		t.Errorf("on the overlay: %q, %v, want %q", out, err, want)
	}
	if got := m.read(t, "world/fs/d/a"); got != "lower" {
		t.Errorf("the lower file: %q", got)
	}
}

// find returns the row of a path that the image has.
func (im *image) find(t testing.TB, path string) pfimg.Row {
	t.Helper()
	r, ok := im.ix.Find(path)
	if !ok {
		t.Fatalf("the image has no %s", path)
	}
	return r
}
