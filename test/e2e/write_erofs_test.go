package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// writes tries every change on the files f (0644) and r (0444) and the folder d below sys.argv[1], and
// prints what did not fail with EROFS.
const writes = `
import errno, os, sys
os.chdir(sys.argv[1])
def check(name, call):
    try:
        call()
        print(name, 'succeeded')
    except OSError as e:
        if e.errno != errno.EROFS: print(name, e)
o = os.open
for f in ('f', 'r', 'd/in'):
    check('open w ' + f, lambda: o(f, os.O_WRONLY))
    check('open rw ' + f, lambda: o(f, os.O_RDWR))
    check('open trunc ' + f, lambda: o(f, os.O_WRONLY | os.O_TRUNC))
    check('open append ' + f, lambda: o(f, os.O_WRONLY | os.O_APPEND))
    check('truncate ' + f, lambda: os.truncate(f, 0))
    check('unlink ' + f, lambda: os.unlink(f))
    check('rename ' + f, lambda: os.rename(f, 'new'))
    check('link ' + f, lambda: os.link(f, 'new'))
    check('chmod ' + f, lambda: os.chmod(f, 0o600))
    check('chown ' + f, lambda: os.chown(f, os.getuid(), os.getgid()))
    check('utimes ' + f, lambda: os.utime(f, (1, 1)))
    check('utimes now ' + f, lambda: os.utime(f))
    check('setxattr ' + f, lambda: os.setxattr(f, 'user.a', b'b'))
    check('removexattr ' + f, lambda: os.removexattr(f, 'user.a'))
check('creat', lambda: o('new', os.O_WRONLY | os.O_CREAT, 0o644))
check('creat excl', lambda: o('d/new', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644))
check('tmpfile', lambda: o('d', os.O_RDWR | os.O_TMPFILE, 0o644))
check('mkdir', lambda: os.mkdir('new'))
check('rmdir', lambda: os.rmdir('e'))
check('rename dir', lambda: os.rename('d', 'new'))
check('symlink', lambda: os.symlink('f', 'new'))
check('unlink link', lambda: os.unlink('l'))
check('mkfifo', lambda: os.mkfifo('new'))
def access(name):
    import ctypes
    c = ctypes.CDLL(None, use_errno=True)
    if c.access(name.encode(), os.W_OK) == 0: return
    raise OSError(ctypes.get_errno(), 'access')
for f in ('f', 'r', 'd', '.'): check('access ' + f, lambda: access(f))
assert os.access('f', os.R_OK) and os.access('d', os.X_OK)
`

// TestReadOnly: every change is EROFS for the owner and for root, the mount says ro, and programs
// that only read do not complain.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		m := e.Mount(e.Push(harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{
			imgbuild.File("f", "0644", imgbuild.Text("text\n")),
			imgbuild.File("r", "0444", imgbuild.Text("text\n")),
			imgbuild.Dir("d", "0755"), imgbuild.File("d/in", "0600", imgbuild.Text("needle\n")),
			imgbuild.Dir("e", "0755"), imgbuild.Symlink("l", "f"),
		}})))
		r := e.Command("env", "python3", "-c", writes, m.Path("world/fs")).Wait(harness.Limit).Want(t, 0)
		if r.Stdout != "" {
			t.Errorf("not EROFS:\n%s", r.Stdout)
		}
		line := harness.MountLines(t, m.Dir)[0]
		for _, option := range []string{"ro", "nosuid", "nodev"} {
			if !slices.Contains(strings.Split(line.Options, ","), option) {
				t.Errorf("mountinfo lacks %s: %+v", option, line)
			}
		}
		if !slices.Contains(strings.Split(line.Super, ","), "default_permissions") ||
			line.Source != m.Ref || line.Type != "fuse.pfmount" {
			t.Errorf("mountinfo: %+v", line)
		}
		for what, script := range map[string]string{
			"vi":   `vi -R -n -e -s -c ':%print' -c ':q!' "$1/f"`,
			"less": `less "$1/f"`,
			"grep": `grep -rh text "$1"/f`,
		} {
			if r := e.Sh(script+` </dev/null`, m.Path("world/fs")).Want(t,
				0); strings.TrimSpace(r.Stdout) != "text" || r.Stderr != "" {
				t.Errorf("%s: %v", what, r)
			}
		}
	})
}
