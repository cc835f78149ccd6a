package daemon

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// AwaitExit waits until the daemon of an ended mount is gone too, and reports whether it is. A
// pidfd tells at once, and also of a process that has ended but whose parent, the init of a
// container say, takes seconds to notice: signal 0 still finds that.
func AwaitExit(pid int, limit time.Duration) bool {
	if pid <= 0 {
		return true
	}
	end := time.Now().Add(limit)
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	for time.Now().Before(end) {
		if err == nil {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, _ := unix.Poll(p, int(time.Until(end).Milliseconds())+1); n > 0 {
				return true
			}
			continue // interrupted, or time is up
		}
		if errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			return true
		}
		time.Sleep(5 * time.Millisecond) // no pidfd before Linux 5.3
	}
	return false
}
