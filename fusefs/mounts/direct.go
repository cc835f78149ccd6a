package mounts

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// direct mounts with mount(2), which needs CAP_SYS_ADMIN.
type direct struct{}

var _ attacher = direct{}

// attach mounts on the directory itself, by way of its descriptor: its path may lead elsewhere by
// now.
func (direct) attach(at *Dir, o Options) (int, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, deviceError(err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,default_permissions",
		fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), o.maxRead())
	if o.AllowOther {
		data += ",allow_other"
	}
	flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if o.NoExec {
		flags |= unix.MS_NOEXEC
	}
	err = unix.Mount(o.Source, at.magic(), ours, flags, data)
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	switch {
	case errors.Is(err, unix.EBUSY):
		return -1, fmt.Errorf("%w: %s", ErrBusy, at.path)
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("mount(2): %w: it needs CAP_SYS_ADMIN, "+
			"which a container gives only when asked to", err)
	case errors.Is(err, unix.ENOENT):
		return -1, fmt.Errorf("%w: %w: %s was removed", ErrMountPoint, ErrMoved, at.path)
	case errors.Is(err, unix.ENODEV):
		return -1, fmt.Errorf("%w: the kernel has no FUSE (modprobe fuse)", ErrDevice)
	}
	return -1, fmt.Errorf("mount(2): %w", err)
}

func (direct) detach(at *place, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(at.path(), flags)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%w: %s: files are open below it, or it is a working directory",
			ErrBusy, at.point)
	}
	if err != nil {
		return fmt.Errorf("umount2(2): %s: %w", at.point, err)
	}
	return nil
}

// Device is ErrDevice unless the kernel's side of FUSE can be opened.
func Device() error {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return deviceError(err)
	}
	return unix.Close(fd)
}

// deviceError says what to do when the device cannot be opened because of err.
func deviceError(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: it is missing: load the module with 'modprobe fuse', "+
			"or give the container the device: %w", ErrDevice, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: it may not be opened "+
			"(udev gives it mode 0666; a container must be given the device): %w", ErrDevice, err)
	}
	return fmt.Errorf("%w: %w", ErrDevice, err)
}
