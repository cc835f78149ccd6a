package environ

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// SetHome sets an unset HOME to the home folder of the user's passwd entry, for this process and
// the programs that it starts: mount(8), called by a user, removes HOME from the environment. Root
// keeps none and has the system's folders then. Without such an entry or folder HOME stays unset.
func SetHome() {
	uid := os.Geteuid()
	if uid == 0 || os.Getenv("HOME") != "" {
		return
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil || !filepath.IsAbs(u.HomeDir) {
		return
	}
	if fi, err := os.Stat(u.HomeDir); err == nil && fi.IsDir() {
		_ = os.Setenv("HOME", u.HomeDir)
	}
}
