package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// readers are Python programs that print the SHA-256 of the file sys.argv[1], each by its own system call.
var readers = map[string]string{
	"mmap": `
import hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
print(hashlib.sha256(m).hexdigest())`,
	"mmap backwards": `
import hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
for at in range(len(m) - 1, -1, -4096): m[at]
print(hashlib.sha256(m).hexdigest())`,
	"sendfile": `
import hashlib, os, sys, tempfile
fd, out, n = os.open(sys.argv[1], os.O_RDONLY), tempfile.TemporaryFile(), 0
while True:
    c = os.sendfile(out.fileno(), fd, n, 1 << 20)
    if c == 0: break
    n += c
out.seek(0)
print(hashlib.sha256(out.read()).hexdigest())`,
	"copy_file_range": `
import hashlib, shutil, sys, tempfile, os
out = tempfile.mktemp()
shutil.copyfile(sys.argv[1], out)
print(hashlib.sha256(open(out, 'rb').read()).hexdigest()); os.unlink(out)`,
	"read": `
import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())`,
	"seek end": `
import hashlib, os, sys
f = open(sys.argv[1], 'rb'); n = f.seek(0, os.SEEK_END); f.seek(0)
b = f.read(n); assert len(b) == n and n > 0
print(hashlib.sha256(b).hexdigest())`,
}

// TestFirstAccess: mmap, sendfile and the like as the first access ever to a cold file of 50 MB,
// and to a blob whose size is not signed.
func TestFirstAccess(t *testing.T) {
	t.Parallel()
	diff := noise(3 << 20)
	img := harness.Build(t, imgbuild.Spec{
		Top:     map[string][]byte{"model.diff": diff},
		Entries: []imgbuild.Entry{imgbuild.File("f", "0644", imgbuild.Pattern{Seed: 1, Len: 50_000_001})},
	})
	file, unknown := strings.TrimPrefix(img.Digest("world/fs/f"), "sha256:"), harness.SHA256(diff)
	wire := map[string]string{"world/fs/f": img.WireOf("world/fs/f"),
		"model/diff.json": img.WireOf("model/diff.json")}
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		ref, srv := e.Push(img), e.Registry()
		for name, script := range readers {
			for path, want := range map[string]string{"world/fs/f": file, "model/diff.json": unknown} {
				e.Run("cache", "clear").Want(t, 0)
				m := e.Mount(ref)
				srv.Reset()
				r := e.Command("env", "python3", "-c", script, m.Path(path)).Wait(harness.Limit).Want(t, 0)
				if strings.TrimSpace(r.Stdout) != want {
					t.Errorf("%s of %s: %v, want %s", name, path, r, want)
				}
				if n := srv.Count(faultreg.Match{Ref: wire[path]}); n != 1 {
					t.Errorf("%s of %s: %d requests, want 1", name, path, n)
				}
				m.Unmount()
			}
		}
	})
}

// TestExec: an ELF program, a script and a program found through a symlink run from a cold mount;
// a file without the bit does not.
func TestExec(t *testing.T) {
	t.Parallel()
	elf, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	cat, err := os.ReadFile("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		m := e.Mount(e.Push(harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{
			imgbuild.File("true", "0755", imgbuild.Bytes(elf)),
			imgbuild.File("plain", "0644", imgbuild.Bytes(elf)),
			imgbuild.File("cat", "0755", imgbuild.Bytes(cat)), imgbuild.Symlink("link", "true"),
			imgbuild.File("run.sh", "0755",
				imgbuild.Text("#!/bin/bash\nset -e\nexec \"$(dirname \"$0\")\"/cat <<<\"ran $1\"\n")),
		}})))
		// Through a shell: a thread of this process that waits in execve for the mount can stop the whole
		// process, at a garbage collection, and with it the registry that the mount waits for.
		e.Sh(`"$1" && "$2"`, m.Path("world/fs/true"), m.Path("world/fs/link")).Want(t, 0)
		if r := e.Sh(`"$1" it`, m.Path("world/fs/run.sh")).Want(t, 0); r.Stdout != "ran it\n" {
			t.Errorf("script: %v", r)
		}
		e.Sh(`"$1"`, m.Path("world/fs/plain")).Want(t, 126, "Permission denied")
	})
}

// TestGit: git works in a repository inside the mount.
func TestGit(t *testing.T) {
	t.Parallel()
	harness.Each(t, func(t *testing.T, e *harness.Env) {
		repo := e.MakeDir("repo")
		e.Sh(`cd "$1"; git init -q; git config user.name n; git config user.email n@example.org
for i in $(seq 40); do seq $i 500 >f$i; echo "needle $i" >>f$i; done
git add .; git commit -qm first; echo more >>f1; git commit -qam second; git gc -q; echo last >>f2; git commit -qam third`, repo).Want(t, 0)
		m := e.Mount(e.Push(harness.Build(t, imgbuild.Spec{Entries: imgbuild.Sort(entriesOf(t, repo))})))
		r := e.Sh(`cd "$1"; git log --oneline | wc -l; git grep -c needle | wc -l; git fsck --full; git show HEAD:f2 | tail -1
git -c core.fileMode=true diff --stat; git clone -q . "$2" && git -C "$2" log --oneline | wc -l`, m.Path("world/fs"), e.Path("home/clone")).Want(t, 0)
		if want := "3\n40\nlast\n3\n"; r.Stdout != want {
			t.Errorf("git says %v, want %q", r, want)
		}
	})
}

// entriesOf makes entries of a folder's files.
func entriesOf(t *testing.T, dir string) []imgbuild.Entry {
	t.Helper()
	var list []imgbuild.Entry
	err := filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, mode := path[len(dir)+1:], "0644"
		if st.Mode()&0o100 != 0 {
			mode = "0755"
		}
		if st.IsDir() {
			list = append(list, imgbuild.Dir(name, mode))
			return nil
		}
		data, err := os.ReadFile(path)
		list = append(list, imgbuild.File(name, mode, imgbuild.Bytes(data)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
