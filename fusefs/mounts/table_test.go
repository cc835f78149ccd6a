package mounts

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func parse(t *testing.T, table string) Table {
	t.Helper()
	all, err := Parse(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestParse(t *testing.T) {
	for line, want := range map[string]Table{
		`71 1 0:52 / /mnt/a\040b\012c ro,nosuid,nodev - fuse.pfmount ghcr.io/o/r:t ro,user_id=1000,group_id=0`: {
			{71, 1, "0:52", "/mnt/a b\nc", "fuse.pfmount", "ghcr.io/o/r:t",
				"ro,user_id=1000,group_id=0", 1000, 0},
		},
		`22 1 0:20 / /proc rw shared:5 master:1 - proc proc rw`:                                          {{22, 1, "0:20", "/proc", "proc", "proc", "rw", -1, -1}},
		`22 1 0:20 / /p rw - fuse.sshfs h:\134x rw`:                                                      {{22, 1, "0:20", "/p", "fuse.sshfs", `h:\x`, "rw", -1, -1}},
		`22 1 0:20 / /p rw - tmpfs  rw`:                                                                  {{22, 1, "0:20", "/p", "tmpfs", "", "rw", -1, -1}},
		"22 1 0:20 / /a\u00a0b\r\v\fc rw - tmpfs \u2003\x85 rw":                                          {{22, 1, "0:20", "/a\u00a0b\r\v\fc", "tmpfs", "\u2003\x85", "rw", -1, -1}},
		`22 1 0:20 / /p rw - overlay o rw,lowerdir=/a\040b\054:c`:                                        {{22, 1, "0:20", "/p", "overlay", "o", "rw,lowerdir=/a b,:c", -1, -1}},
		"rubbish\n36 25\n\n22 x 0:20 / /p rw - a b c\n- 1 0:20 / /p rw - a b c\n1 1 0:20 / p rw - a b c": nil,
		"": nil,
	} {
		if got := parse(t, line); !slices.Equal(got, want) {
			t.Errorf("%q:\n%+v, want\n%+v", line, got, want)
		}
	}
	if _, err := Parse(strings.NewReader(strings.Repeat("x", 2<<20))); err == nil {
		t.Error("an endless line is no error")
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/a": "/a", `a\040b`: "a b", `\134`: `\`, `a\`: `a\`, `a\04`: `a\04`,
		`a\999`: `a\999`, `\040\040`: "  ", `\134040`: `\040`,
	} {
		if got := Unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestTop has stacks, moved mounts and roots in every order of their lines.
func TestTop(t *testing.T) {
	const root = "25 1 8:1 / / rw - ext4 /dev/sda rw"
	const a = "36 25 0:44 / /mnt/a ro - fuse.pfmount img rw"
	for _, test := range []struct {
		name  string
		lines []string
		path  string
		top   int // 0: none
		holds int // 0: none
	}{
		{"there", []string{root, a}, "/mnt/a", 36, 36},
		{"empty table", nil, "/mnt/a", 0, 0},
		{"elsewhere", []string{root, a}, "/mnt/b", 0, 25},
		{"above it", []string{root, a}, "/mnt", 0, 25},
		{"within it", []string{root, a}, "/mnt/a/x/y", 0, 36},
		{"a longer name", []string{root, a}, "/mnt/ab", 0, 25},
		{"the root", []string{root, a}, "/", 25, 25},
		{"covered", []string{root, a, "37 36 0:50 / /mnt/a rw - tmpfs t rw"}, "/mnt/a", 37, 37},
		{"covered by an older one, moved", []string{root, a, "30 36 0:50 / /mnt/a rw - tmpfs t rw"},
			"/mnt/a", 30, 30},
		{"on top of another", []string{root, "35 25 0:50 / /mnt/a rw - tmpfs t rw",
			strings.Replace(a, " 25 ", " 35 ", 1)}, "/mnt/a", 36, 36},
		{"a mount below it", []string{root, a, "37 36 0:50 / /mnt/a/b rw - tmpfs t rw"}, "/mnt/a", 36, 36},
		{"three high", []string{root, a, "31 36 0:50 / /mnt/a rw - tmpfs t rw",
			"30 31 0:51 / /mnt/a rw - tmpfs t rw"}, "/mnt/a", 30, 30},
		{"the folder above is covered", []string{root, a, "37 25 0:50 / /mnt rw - tmpfs t rw"},
			"/mnt/a", 0, 37},
		{"one on the cover", []string{root, a, "37 25 0:50 / /mnt rw - tmpfs t rw",
			"30 37 0:51 / /mnt/a rw - tmpfs t rw"}, "/mnt/a", 30, 30},
		{"over the root", []string{root, a, "37 25 0:50 / / rw - tmpfs t rw"}, "/mnt/a", 36, 36},
		{"a root that is its own parent", []string{"25 25 8:1 / / rw - ext4 s rw", a}, "/mnt/a", 36, 36},
		{"a root that is not listed", []string{a, "37 36 0:50 / /mnt/a/b rw - tmpfs t rw"},
			"/mnt/a/b", 37, 37},
		{"nothing on such a root", []string{a}, "/srv", 0, 0},
		{"a circle", []string{"5 6 0:1 / /a rw - t t rw", "6 5 0:1 / /a rw - t t rw",
			"7 1 0:1 / / rw - t t rw"}, "/a", 0, 7},
	} {
		permute(test.lines, func(lines []string) {
			table := parse(t, strings.Join(lines, "\n"))
			if got := id(table.Top(test.path)); got != test.top {
				t.Errorf("%s: top %d, want %d\n%s", test.name, got, test.top, strings.Join(lines, "\n"))
			}
			if got := id(table.Holding(test.path)); got != test.holds {
				t.Errorf("%s: holding %d, want %d\n%s", test.name, got, test.holds, strings.Join(lines, "\n"))
			}
		})
	}
}

func id(m *Mount) int {
	if m == nil {
		return 0
	}
	return m.ID
}

// permute calls f with every order of the lines.
func permute(lines []string, f func([]string)) {
	var step func(done, rest []string)
	step = func(done, rest []string) {
		if len(rest) == 0 {
			f(done)
		}
		for i := range rest {
			step(append(slices.Clone(done), rest[i]), slices.Delete(slices.Clone(rest), i, i+1))
		}
	}
	step(nil, lines)
}

func TestFind(t *testing.T) {
	m := &Mount{ID: 36, Dev: "0:44", Point: "/mnt/a"}
	for table, want := range map[string]string{
		"36 25 0:44 / /mnt/a ro - fuse.pfmount img rw": "/mnt/a",
		"36 25 0:44 / /moved ro - fuse.pfmount img rw": "/moved",
		"36 25 0:45 / /mnt/a ro - fuse.pfmount img rw": "", // the id was given away
		"37 25 0:44 / /mnt/a ro - fuse.pfmount img rw": "", // a bind
		"": "",
	} {
		got := ""
		if now := parse(t, table).Find(m); now != nil {
			got = now.Point
		}
		if got != want {
			t.Errorf("%q: found at %q, want %q", table, got, want)
		}
	}
}

// TestKernel compares Top with the kernel's own answer where it has stacked, moved and covered
// mounts, names of all kinds included.
func TestKernel(t *testing.T) {
	dir := t.TempDir()
	odd := dir + "/odd \t\\#\u00a0name\n"
	script := `set -e
mount -t tmpfs base "$1"; cd "$1"; mkdir a b c c/d "$2"
mount -t tmpfs first b; mount -t tmpfs second a; mount --move b a
mount -t tmpfs inner c/d; mount -t tmpfs over c
mount -t tmpfs odd "$2"; mount -t tmpfs odder "$2"
echo ready; exec cat`
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", dir, odd)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		cmd.Wait()
	}()
	if n, err := out.Read(make([]byte, 6)); err != nil || n != 6 {
		t.Fatalf("the other namespace: %d bytes, %v", n, err)
	}
	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	table, err := ReadFile(proc + "mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for path, source := range map[string]string{dir: "base", dir + "/a": "first",
		dir + "/c": "over", odd: "odder"} {
		m := table.Top(path)
		if m == nil || m.Source != source {
			t.Errorf("%q: %+v, want %s", path, m, source)
			continue
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, proc+"root"+path, unix.AT_SYMLINK_NOFOLLOW,
			unix.STATX_MNT_ID, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mask&unix.STATX_MNT_ID != 0 && int(st.Mnt_id) != m.ID {
			t.Errorf("%q: mount %d, the kernel says %d", path, m.ID, st.Mnt_id)
		}
	}
	for _, path := range []string{dir + "/b", dir + "/c/d"} {
		if m := table.Top(path); m != nil {
			t.Errorf("%q: %+v, want none that is seen", path, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("25 1 8:1 / / rw - ext4 /dev/sda rw\n36 25 0:44 / /mnt/a\\040b ro shared:5 - fuse.pfmount img rw,user_id=0\n", "/mnt/a b")
	f.Add("5 6 0:1 / /a rw - t t rw\n6 5 0:1 / /a rw - t t rw\n7 1 0:1 / / rw - t t rw", "/a")
	f.Add("1 1 0:1 / / rw - t t rw\n1 1 0:1 / // rw - t t rw", "//")
	f.Fuzz(func(t *testing.T, table, path string) {
		all, err := Parse(strings.NewReader(table))
		if err != nil {
			return
		}
		for _, m := range all {
			if !strings.HasPrefix(m.Point, "/") || m.ID < 0 {
				t.Errorf("%+v", m)
			}
			if all.ByID(m.ID) == nil || !all.ByID(m.ID).Same(all.Find(all.ByID(m.ID))) {
				t.Errorf("%d is not found", m.ID)
			}
		}
		if m := all.Top(path); m != nil && m.Point != path {
			t.Errorf("on top of %q is %+v", path, m)
		}
		escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`, "#",
			`\043`).Replace(path)
		if got := Unescape(escaped); got != path {
			t.Errorf("%q was escaped as %q and is %q", path, escaped, got)
		}
	})
}
