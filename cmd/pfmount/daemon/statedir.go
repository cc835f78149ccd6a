package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/pfmount/pfmount/fetch/safedir"
)

// stateDir is where a user's sockets are, by what this process can know: $XDG_RUNTIME_DIR, else the
// usual place.
func stateDir(uid int) string {
	if uid == os.Geteuid() {
		return stateDirBy(uid, os.Getenv)
	}
	return stateDirBy(uid, func(string) string { return "" })
}

// stateDirBy is where the sockets of a user's process are, by its environment.
func stateDirBy(uid int, getenv func(string) string) string {
	dir := getenv("XDG_RUNTIME_DIR")
	if filepath.IsAbs(dir) && (uid != 0 || safedir.Trusted(dir)) {
		return filepath.Join(dir, "pfmount")
	}
	if uid == 0 {
		return "/run/pfmount"
	}
	if dir := fmt.Sprintf("/run/user/%d", uid); isOwnDir(dir, uid) {
		return filepath.Join(dir, "pfmount")
	}
	tmp := getenv("TMPDIR")
	if !filepath.IsAbs(tmp) {
		tmp = "/tmp"
	}
	return filepath.Join(tmp, "pfmount-"+strconv.Itoa(uid))
}

// isOwnDir reports whether dir is a directory, not a link, of that user.
func isOwnDir(dir string, uid int) bool {
	fi, err := os.Lstat(dir)
	if err != nil || !fi.IsDir() {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}

// ShortHash tells mount points apart in the names of their files.
func ShortHash(mountpoint string) string {
	sum := sha256.Sum256([]byte(mountpoint))
	return hex.EncodeToString(sum[:8])
}

func socketName(mountpoint string) string { return ShortHash(mountpoint) + ".sock" }

// RemoveSocket removes the socket of a mount whose process is dead.
func RemoveSocket(mountpoint string, uid int) {
	removeLeftover(filepath.Join(stateDir(uid), socketName(mountpoint)), uid)
}
