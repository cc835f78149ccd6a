package environ

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pfmount/pfmount/fetch/safedir"
)

// folderVars name folders in which this program, or one that it starts, reads settings or writes.
var folderVars = []string{
	"HOME", "TMPDIR",
	"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
}

// DropForeignFolders unsets, for root, those of folderVars that lead to a folder of another user,
// as after sudo -E or su -m: that user could change what is read there, and where it is written.
func DropForeignFolders(warnings io.Writer) {
	if os.Geteuid() != 0 {
		return
	}
	var dropped []string
	for _, name := range folderVars {
		if dir := os.Getenv(name); dir != "" && !safedir.Trusted(dir) && os.Unsetenv(name) == nil {
			dropped = append(dropped, name)
		}
	}
	if len(dropped) > 0 {
		fmt.Fprintf(warnings,
			"pfmount: warning: root does not use %s: the folder is another user's\n",
			strings.Join(dropped, ", "))
	}
}
