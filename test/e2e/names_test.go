package e2e

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestTwiceTheSamePath: a path that occurs twice as a file shows its last entry, with a warning,
// at every mount; listings show no trace of the clash.
func TestTwiceTheSamePath(t *testing.T) {
	t.Parallel()
	text := func(path, mode, s string) imgbuild.Entry { return imgbuild.File(path, mode, imgbuild.Text(s)) }
	tests := []struct {
		name    string
		entries []imgbuild.Entry
		warning string
	}{
		{"two contents", []imgbuild.Entry{text("d/a", "0600", "first"),
			text("d/a", "0644", "second one")}, `"world/fs/d/a"`},
		{"one content", []imgbuild.Entry{text("d/a", "0600", "same"), text("d/a", "0644", "same")},
			`"world/fs/d/a"`},
		{"apart", []imgbuild.Entry{text("a", "0600", "first"), text("b", "0644", "b"),
			imgbuild.Dir("c", "0755"), text("a", "0755", "last")}, `"world/fs/a"`},
		{"file, then link", []imgbuild.Entry{text("a", "0600", "first"),
			imgbuild.Symlink("a", "b")}, `"world/fs/a"`},
		{"link, then file", []imgbuild.Entry{imgbuild.Symlink("a", "b"), text("a", "0600", "last")},
			`"world/fs/a"`},
		{"folder twice", []imgbuild.Entry{imgbuild.Dir("d", "0700"), text("d/a", "0644", "a"),
			imgbuild.Dir("d", "0755")}, ""},
		{"folder after its files", []imgbuild.Entry{text("d/a", "0644", "a"), imgbuild.Dir("d", "0700")}, ""},
		{"case", []imgbuild.Entry{text("a", "0644", "1"), text("A", "0644", "2"),
			imgbuild.Dir("Ä", "0755"), text("ä", "0644", "3")}, ""},
		{"NFC and NFD", []imgbuild.Entry{text("\u00e9", "0644", "composed"),
			text("e\u0301", "0644", "decomposed")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			spec := imgbuild.Spec{Entries: tt.entries}
			ref := e.Serve(harness.Build(t, spec))
			want := wanted(t, tt.entries)
			for range 2 {
				dir := e.MountDir()
				r := e.Run(ref, dir).Want(t, 0, tt.warning)
				calm(t, e, r)
				if twice := strings.Contains(r.Stderr, "twice"); twice != (tt.warning != "") {
					t.Errorf("warning: %v", r)
				}
				m := e.Mounted(ref, dir)
				m.Compare("world/fs", want)
				if r := e.Sh(`ls -laR "$1" && find "$1" -ls`, m.Path("world/fs")).Want(t,
					0); r.Stderr != "" || strings.Contains(r.Stdout, "?????") {
					t.Errorf("listing: %v", r)
				}
				m.Unmount()
			}
		})
	}
}

// wanted is what entries must show, where the last of a path decides.
func wanted(t *testing.T, entries []imgbuild.Entry) []imgbuild.Want {
	t.Helper()
	spec := imgbuild.Spec{Entries: entries}
	want, err := spec.Want()
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// oddNames are legal names that have broken other tools.
func oddNames() []string {
	return []string{
		"\n", "a\nb", "-", "-rf", "--help", " ", "trailing ", " leading", "\t", "*", "?", "[a]",
		"~", "$HOME", "`id`", "'", `"`, `\`, "a\\nb",
		"\x01", "\x1b[31mred", "\x7f", "...", ".hidden", "..x", "😀", "👩‍👩‍👧", "שלום", "\u202eevil",
		"\ufffd", "e\u0301", "\u00a0", "\ufeffbom", "CON", "a:b", "%00", "%2e%2e",
		strings.Repeat("n", 255), strings.Repeat("ü", 127) + "x",
	}
}

// TestOddNames: names with newlines, controls, odd bytes and full length are there by find, stat
// and read, and the daemon stays alive.
func TestOddNames(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		var entries []imgbuild.Entry
		for i, name := range oddNames() {
			entries = append(entries, imgbuild.File(name, "0644",
				imgbuild.Text("content of "+name)), imgbuild.Dir("d/"+name, "0755"),
				imgbuild.File("d/"+name+"/"+name, "0644",
					imgbuild.Numbered(1000)(i)), imgbuild.Symlink("l/"+name, name))
		}
		deep := strings.Repeat("s/", 64)
		longest := strings.Repeat(strings.Repeat("p", 200)+"/", 20) + strings.Repeat("q", 76) // 4,096 bytes
		entries = append(entries, imgbuild.File(deep+"deep", "0644", imgbuild.Text("deep")),
			imgbuild.File(longest, "0644", imgbuild.Text("long")))
		m := e.Mount(e.Serve(harness.Build(t, imgbuild.Spec{Entries: entries})))
		m.Compare("world/fs", wanted(t, entries))
		e.Sh(`cd "$1" && rm -f "$2" && find . -path './ppp*' -prune -o -print0 | xargs -0 stat -- > "$2" && test -s "$2"`,
			m.Path("world/fs"), e.Path("tmp/stat")).Want(t, 0)
		e.Sh(`cd "$1" && find . | tail -n 1 && ls -la >/dev/null && tar -cf - --exclude='ppp*' . | wc -c`, m.Path("world/fs")).Want(t, 0)
		for _, n := range []int{256, 300} {
			name := m.Path("world/fs/" + strings.Repeat("n", n))
			err := e.Do(func() error { var st unix.Stat_t; return unix.Lstat(name, &st) })
			if !errors.Is(err, syscall.ENAMETOOLONG) && !errors.Is(err, syscall.ENOENT) {
				t.Errorf("stat of a name of %d bytes: %v", n, err)
			}
		}
		if got := string(m.Read("world/fs/" + deep + "deep")); got != "deep" || !harness.Alive(m.PID) {
			t.Errorf("after all that: %q", got)
		}
	})
}

// TestOddNamesInOutput: names of a foreign hand do not reach the terminal as they are.
func TestOddNamesInOutput(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	entries := []imgbuild.Entry{
		imgbuild.File("\x1b[31mred", "0644", imgbuild.Text("1")),
		imgbuild.File("\x1b[31mred", "0644", imgbuild.Text("2")),
		imgbuild.File("\x1b[32mbad", "0644", imgbuild.Text("3")),
	}
	img := harness.Build(t, imgbuild.Spec{Entries: entries})
	img.Layer(img.Digest("world/fs/\x1b[32mbad")).SetWire([]byte("no zstd"))
	ref := e.Serve(img)
	calm(t, e, e.Run("verify", ref).Want(t, 4))
	calm(t, e, e.Run("cat", ref, "world/fs/\x1b[32mbad").Want(t, 4))
	calm(t, e, e.Run("cat", ref, "world/fs/\x1b[33mnone").Want(t, 1))
	m := e.Mount(ref)
	if _, err := m.ReadErr("world/fs/\x1b[32mbad"); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v", err)
	}
	calm(t, e, e.Run("status", m.Dir).Want(t, 0))
}
