package e2e

import (
	"encoding/binary"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// walkLimit is a bound on hanging: the walk of 20,000 files takes well below a second on an idle machine,
// and other tests run beside this one.
const walkLimit = 30 * time.Second

// TestWalk: listings of 20,000 files ask the registry for nothing, cold and warm; cp and tar,
// which ask for xattrs, work.
func TestWalk(t *testing.T) {
	t.Parallel()
	img := harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(100, 200, imgbuild.Numbered(50))})
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		m := e.Mount(e.Push(img))
		e.Registry().Reset()
		for _, when := range []string{"cold", "warm"} {
			for name, script := range map[string]string{
				"find -ls": `find "$1" -ls | wc -l`, "ls -lR": `ls -lR "$1" | wc -l`,
				"du": `du -a "$1" | wc -l`, "getfattr": `(getfattr -dR "$1" 2>&1 || true) | wc -l`,
			} {
				if when == "cold" {
					forgetNames(t)
				}
				r := e.Sh(script, m.Path("world/fs")).Want(t, 0)
				if n := numbers(t, r.Stdout)[0]; name != "getfattr" && n < 20_100 {
					t.Errorf("%s %s lists %d lines", when, name, n)
				}
				if r.Took > walkLimit {
					t.Errorf("%s %s took %v", when, name, r.Took)
				}
				t.Logf("%s %s: %v", when, name, r.Took.Round(time.Millisecond))
			}
		}
		silent(t, e.Registry(), "find, ls, du and getfattr")
		e.Sh(`cp -a "$1" "$2" && diff -r "$1" "$2" && tar --xattrs -cf - "$1" | tar tf - | wc -l`,
			m.Path("world/fs/d0007"), e.Path("home/copy")).Want(t, 0)
	})
}

// TestXattrCalls: what the kernel asks while programs ask for the xattrs of every file. Once it
// knows that there are none, it does not ask again.
func TestXattrCalls(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "") // strace needs root
	m := e.Mount(e.Push(harness.Build(t,
		imgbuild.Spec{Seq: imgbuild.Folders(5, 100, imgbuild.Numbered(10))})))
	trace := e.Path("tmp/trace")
	p := e.Command("strace", "-f", "-xx", "-s", "8", "-e", "trace=read", "-o", trace, "-p",
		strconv.Itoa(m.PID))
	harness.Eventually(t, time.Minute, "strace",
		func() bool { return strings.Contains(p.Stderr(), "attached") })
	e.Sh(`ls -lR "$1" && find "$1" -ls && tar --xattrs --acls -cf - "$1" | tar tf -; getfattr -dR "$1" || true; cp -a "$1" "$2"`,
		m.Path("world/fs"), e.Path("home/copy")).Want(t, 0)
	p.Signal(2)
	p.Wait(harness.Limit)
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[uint32]int{}
	for _, hit := range regexp.MustCompile(`read(?:\(\d+, | resumed>)"((?:\\x[0-9a-f]{2}){8})"`).FindAllStringSubmatch(string(data), -1) {
		calls[opcode(t, hit[1])]++
	}
	// Numbers of the protocol (linux/fuse.h).
	const lookup, getxattr, listxattr, readdirplus, open, opendir, read, release, flush = 1, 22, 23, 44, 14, 27, 15, 18, 25
	if calls[read] == 0 || calls[readdirplus] == 0 {
		t.Fatalf("the trace shows no READ or no READDIRPLUS: %v", calls)
	}
	if calls[getxattr] > 1 || calls[listxattr] > 1 {
		t.Errorf("%d GETXATTR and %d LISTXATTR for 500 files, want one each at most",
			calls[getxattr], calls[listxattr])
	}
	if n := calls[open] + calls[opendir] + calls[release] + calls[flush]; n > 4 {
		t.Errorf("%d calls to open, release and flush, which should be off: %v", n, calls)
	}
	if calls[lookup] > 50 {
		t.Errorf("%d LOOKUPs for 500 files in listed folders: %v", calls[lookup], calls)
	}
}

// opcode reads the call's number from the first eight bytes of a request, written as \xNN.
func opcode(t *testing.T, text string) uint32 {
	t.Helper()
	var b []byte
	for _, x := range strings.Split(text, `\x`)[1:] {
		n, err := strconv.ParseUint(x, 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, byte(n))
	}
	return binary.NativeEndian.Uint32(b[4:])
}
