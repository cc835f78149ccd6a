package fusefs

import (
	"errors"
	"syscall"
)

// What ends a waiting call beside an error of Blobs.
var (
	errKilled   = errors.New("the reader was killed")
	errStopping = errors.New("the mount is ending")
	errSizeWait = errors.New("the size is still not known (the fetch goes on)")
	errDamaged  = errors.New("damaged blob")
)

// errno is the only table from an error to what the reader sees. EINTR goes to the dead alone: to
// answer a living reader with it breaks programs that handle signals. So a bare context.Canceled,
// which here means that another context ended, is EIO.
func errno(err error) syscall.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errKilled):
		return syscall.EINTR
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return syscall.ENOSPC // the cache's disk is full; a reader has no quota
	}
	return syscall.EIO
}
