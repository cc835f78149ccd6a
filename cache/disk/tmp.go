package disk

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// cleanTmp removes the files of fills whose process died: those without a lock. It says
// whether the usage number had one of them.
func cleanTmp(ctx context.Context, d *Dir, f *layout.Folder) (counted bool) {
	names, err := layout.DirNames(f.Tmp, -1)
	if err != nil && !os.IsNotExist(err) {
		return false
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return counted
		}
		fd, err := layout.Open(f.Tmp, name, unix.O_RDONLY, 0o400)
		if layout.NotPartial(err) {
			_ = layout.Remove(f.Tmp, name)
		}
		if err != nil {
			continue
		}
		if ok, err := layout.TryLock(fd); ok && err == nil {
			d.lim.pause("clean")
			if same, err := layout.IsCurrent(fd, f.Tmp, name); same && err == nil {
				var st unix.Stat_t
				counted = unix.Fstat(fd, &st) == nil && st.Mode&0o7777 == growingMode || counted
				_ = layout.Remove(f.Tmp, name)
			}
		}
		_ = unix.Close(fd)
	}
	return counted
}
