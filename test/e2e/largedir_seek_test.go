package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// seeks walks the folder sys.argv[1] with telldir and seekdir and checks the sys.argv[2] names.
const seeks = `
import ctypes, random, sys
c = ctypes.CDLL(None, use_errno=True)
c.opendir.restype = ctypes.c_void_p
c.opendir.argtypes = [ctypes.c_char_p]
c.readdir.restype = ctypes.c_void_p
c.readdir.argtypes = c.rewinddir.argtypes = c.telldir.argtypes = c.closedir.argtypes = [ctypes.c_void_p]
c.telldir.restype = ctypes.c_long
c.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
d = c.opendir(sys.argv[1].encode())
assert d
def name():
    p = c.readdir(d)
    return ctypes.string_at(p + 19) if p else None # d_ino, d_off, d_reclen, d_type come before the name
def rest():
    names = []
    while (n := name()) is not None: names.append(n)
    return names
all = rest()
assert len(all) == len(set(all)) == int(sys.argv[2]) + 2, len(all)
c.rewinddir(d)
assert rest() == all, 'rewinddir after the end'
c.rewinddir(d)
for _ in range(777): name()
c.rewinddir(d)
marks = []
for i in range(2000):
    marks.append((c.telldir(d), i))
    assert name() == all[i]
for _ in range(len(all) - 2000 - 5): name()
for i in range(len(all) - 5, len(all)):
    marks.append((c.telldir(d), i))
    assert name() == all[i]
random.Random(1).shuffle(marks)
for mark, i in marks:
    c.seekdir(d, mark)
    got = name()
    assert got == all[i], (i, got, all[i])
c.seekdir(d, marks[0][0])
assert rest() == all[marks[0][1]:], 'the rest after a seek'
`

// TestLargeFolder: a folder of 50,000 names is listed once and whole, by many at a time, and
// remembered places in it stay right.
func TestLargeFolder(t *testing.T) {
	t.Parallel()
	const count = 50_000
	img := harness.Build(t, imgbuild.Spec{Seq: func(yield func(imgbuild.Entry) bool) {
		for i := range count {
			// Names of 6 to 255 bytes.
			name := fmt.Sprintf("n%05d%s", i, strings.Repeat("x", i*37%250))
			if !yield(imgbuild.File("big/"+name, "0644", imgbuild.Text(fmt.Sprint(i%7)))) {
				return
			}
		}
	}})
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		m := e.Mount(e.Push(img))
		dir := m.Path("world/fs/big")
		r := e.Sh(`ls -f "$1" | sort >"$2"; wc -l <"$2"; uniq -d <"$2" | wc -l; find "$1" -type f | wc -l`, dir, e.Path("tmp/names")).Want(t, 0)
		if want := fmt.Sprintf("%d\n0\n%d\n", count+2, count); r.Stdout != want {
			t.Errorf("names, repeated, found: %q, want %q", r.Stdout, want)
		}
		forgetNames(t)
		var readers []*harness.Process
		for range 8 {
			readers = append(readers, e.Command("env", "python3", "-c", seeks, dir, fmt.Sprint(count)))
		}
		for _, p := range readers {
			p.Wait(harness.Limit).Want(t, 0)
		}
	})
}
