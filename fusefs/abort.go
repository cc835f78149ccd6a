package fusefs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// connections is where the kernel lets a connection's user end it (Documentation/filesystems/fuse.rst).
const connections = "/sys/fs/fuse/connections/"

// Abort ends the connection of the mount m by force: a call that waits gets ENOTCONN. It is for a process that was killed
// in the middle of a Store: the kernel may hold it, for the sake of a reader that is not answered any more.
func Abort(m *mounts.Mount) error {
	_, minor, _ := strings.Cut(m.Dev, ":")
	f, err := os.OpenFile(connections+minor+"/abort", os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("1")
		return errors.Join(err, f.Close())
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("abort: %w", err)
	}
	// There is no such folder in most containers. This ends the connection, and is refused as it is in use.
	at, err := placeOf(m)
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
