package daemon

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// LogPath returns where the log of a mount is kept: a file for each mount point in the user's state
// folder; without a HOME, root has /var/log/pfmount.
func LogPath(mountpoint string) (string, error) {
	name := strings.ReplaceAll(strings.Trim(mountpoint, "/"), "/", "-")
	if len(name) > 100 {
		name = name[len(name)-100:]
	}
	name = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '_'
		}
		return r
	}, name) + "-" + ShortHash(mountpoint) + ".log"
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "pfmount", name), nil
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "pfmount", name), nil
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/log/pfmount", name), nil
	}
	return "", fault.Usagef("no place for the log: HOME is not set, and user %d has no home folder"+
		" in /etc/passwd; give one with --log-file", os.Geteuid())
}
