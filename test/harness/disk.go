package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

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
	return e.Ext4(name, size, "defaults").Dir
}

// Disk is a file system of its own on a loop device, unmounted with the Env.
type Disk struct {
	Dir   string // the user's, 0700
	image string
	env   *Env
}

// Ext4 is LoopExt4 with mount options and, as a Disk, with power cuts.
func (e *Env) Ext4(name string, size int64, options string) *Disk {
	e.t.Helper()
	return e.loop(name, size, options, "mkfs.ext4", "-q", "-F", "-m", "0")
}

// Btrfs mounts a new btrfs on which no more than limit bytes can be written: a quota, so EDQUOT and
// not ENOSPC.
func (e *Env) Btrfs(name string, limit int64) *Disk {
	e.t.Helper()
	d := e.loop(name, 256<<20, "defaults", "mkfs.btrfs", "-q")
	e.root("btrfs", "quota", "enable", d.Dir)
	d.Limit(limit)
	return d
}

// Limit changes a Btrfs's quota.
func (d *Disk) Limit(bytes int64) {
	d.env.t.Helper()
	d.env.root("btrfs", "qgroup", "limit", fmt.Sprint(bytes), d.Dir)
}

// Cut is the moment of a power cut: from now on every call on an Ext4 fails, and what did not reach
// the disk is lost. Processes that use it are to be killed before Restore.
func (d *Disk) Cut() {
	d.env.t.Helper()
	const shutdown, noFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH of linux/fs/ext4/ext4.h
	fd, err := unix.Open(d.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		d.env.t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetPointerInt(fd, shutdown, noFlush); err != nil {
		d.env.t.Fatalf("shutdown of %s: %v", d.Dir, err)
	}
}

// Restore is the boot after a Cut: the journal is replayed. A mount namespace that another process
// made meanwhile may still hold the file system that was cut, and a mount of the same file would
// show that again: then it is of a copy.
func (d *Disk) Restore(options string) {
	d.env.t.Helper()
	// A process just killed may still have files open for a moment.
	Eventually(d.env.t, 30*time.Second, "umount of "+d.Dir,
		func() bool { return unix.Unmount(d.Dir, 0) == nil })
	d.env.root("mount", "-o", "loop,"+options, d.image, d.Dir)
	probe := filepath.Join(d.Dir, "probe")
	if os.WriteFile(probe, nil, 0o600) == nil && os.Remove(probe) == nil {
		return
	}
	d.env.root("umount", d.Dir)
	old := d.image
	d.image += "+"
	d.env.root("cp", "--sparse=always", old, d.image)
	d.env.root("rm", old)
	d.env.root("mount", "-o", "loop,"+options, d.image, d.Dir)
}

// Remount changes options of the mounted file system.
func (d *Disk) Remount(options string) {
	d.env.t.Helper()
	d.env.root("mount", "-o", "remount,"+options, d.Dir)
}

// loop makes a file system in a file with the command mkfs, and mounts it.
func (e *Env) loop(name string, size int64, options string, mkfs ...string) *Disk {
	e.t.Helper()
	d := &Disk{Dir: e.MakeDir(name), image: e.Path(filepath.Base(name) + ".img"), env: e}
	f, err := os.Create(d.image)
	if err != nil {
		e.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		e.t.Fatal(err)
	}
	e.root(append(mkfs, d.image)...)
	e.root("mount", "-o", "loop,"+options, d.image, d.Dir)
	e.root("chown", fmt.Sprintf("%d:%d", e.user.uid, e.user.gid), d.Dir)
	e.root("chmod", "0700", d.Dir)
	return d
}

// root runs a command with the rights of the tests.
func (e *Env) root(argv ...string) {
	e.t.Helper()
	if text, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		e.t.Fatalf("%q: %v: %s", argv, err, text)
	}
}
