package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Tmpfs mounts a file system of that many bytes on a new folder of the user's below the Env's folder; it
// is unmounted with the Env.
func (e *Env) Tmpfs(name string, size int64) string {
	e.t.Helper()
	dir := e.MakeDir(name)
	data := fmt.Sprintf("size=%d,mode=0700,uid=%d,gid=%d", size, e.user.uid, e.user.gid)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, data); err != nil {
		e.t.Fatalf("tmpfs on %s: %v", dir, err)
	}
	return dir
}

// LoopExt4 mounts a new ext4 file system of that many bytes on a new folder of the user's.
func (e *Env) LoopExt4(name string, size int64) string {
	e.t.Helper()
	dir := e.MakeDir(name)
	image := e.Path(filepath.Base(name) + ".img")
	f, err := os.Create(image)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		e.t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", image},
		{"mount", "-o", "loop", image, dir},
		{"chown", fmt.Sprintf("%d:%d", e.user.uid, e.user.gid), dir},
		{"chmod", "0700", dir},
	} {
		if text, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			e.t.Fatalf("%q: %v: %s", argv, err, text)
		}
	}
	return dir
}
