package fusefs

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// protocolWait is how long the kernel may take to say its first word on a connection, in milliseconds; it does so at once.
const protocolWait = 1000

// Protocol asks the kernel for the version of FUSE that it speaks, by a file system that is mounted nowhere and gone when
// Protocol returns. It takes the right to mount; the error is unix.EPERM without.
func Protocol() (major, minor uint32, err error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, 0, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	dev, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, 0, deviceError(err)
	}
	defer unix.Close(dev) // before fs: the end of a connection waits for nothing then
	for _, o := range [][2]string{{"fd", strconv.Itoa(dev)}, {"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"}} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return 0, 0, fmt.Errorf("fsconfig %s: %w", o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, 0, fmt.Errorf("fsconfig: %w", err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(dev), Events: unix.POLLIN}}, protocolWait); err != nil {
		return 0, 0, fmt.Errorf("poll: %w", err)
	}
	// The first request is INIT: struct fuse_in_header of 40 bytes, then major and minor.
	buf := make([]byte, 64<<10)
	n, err := unix.Read(dev, buf)
	if err == nil && n < 48 {
		err = unix.EPROTO
	}
	if err != nil {
		return 0, 0, fmt.Errorf("the kernel's first request: %w", err)
	}
	return binary.NativeEndian.Uint32(buf[40:]), binary.NativeEndian.Uint32(buf[44:]), nil
}
