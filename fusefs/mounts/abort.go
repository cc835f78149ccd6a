package mounts

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// connections is where the kernel lets a connection's user end it
// (Documentation/filesystems/fuse.rst).
const connections = "/sys/fs/fuse/connections/"

// Abort ends the connection of the mount m by force: a call that waits gets ENOTCONN. It is for a
// process that was killed while it stored a file in the page cache: the kernel may keep the process
// because of a reader that is not answered any more.
func Abort(m *Mount) error {
	_, minor, _ := strings.Cut(m.Dev, ":")
	f, err := os.OpenFile(connections+minor+"/abort", os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("1")
		return errors.Join(err, f.Close())
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("abort: %w", err)
	}
	// Most containers have no such directory. A forced unmount ends the connection, and is refused
	// as the mount is in use.
	at, err := locate(m)
	if err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	defer at.Close()
	err = unix.Unmount(at.path(), unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("abort: umount2(2): %s: %w", at.point, err)
	}
	return nil
}
