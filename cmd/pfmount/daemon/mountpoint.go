package daemon

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// CheckMountpoint says what is wrong with a mount point before anything is fetched. It changes
// nothing.
func CheckMountpoint(cfg *Config) error {
	if err := checkApart(cfg); err != nil {
		return err
	}
	top, err := mounts.At(cfg.Mountpoint)
	if err != nil {
		return err
	}
	if top != nil && top.Ours() && mounts.Probe(top) == mounts.Stale {
		return nil // cleared by the daemon, just before it mounts
	}
	at, err := holdFree(cfg.Mountpoint)
	if err != nil {
		return err
	}
	return at.Close()
}

// checkApart refuses a mount point in the directories of cfg.Apart, or around them.
func checkApart(cfg *Config) error {
	for what, dir := range cfg.Apart {
		if dir == "" {
			continue
		}
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		if mounts.Within(dir, cfg.Mountpoint) || mounts.Within(cfg.Mountpoint, dir) {
			return fault.Mountf("%s: the mount point and the %s folder %s lie inside each other: "+
				"a read would wait for itself; choose another mount point",
				cfg.Mountpoint, what, dir)
		}
	}
	return nil
}

// takeMountpoint detaches stale mounts of ours, checks the mount point once more, and holds what it
// has checked until it is mounted on.
func takeMountpoint(cfg *Config, log *slog.Logger) (*mounts.Dir, error) {
	if err := checkApart(cfg); err != nil {
		return nil, err
	}
	for range 16 { // stacked stale mounts; more than a few is a loop
		top, err := mounts.At(cfg.Mountpoint)
		if err != nil {
			return nil, err
		}
		if top == nil || !top.Ours() || mounts.Probe(top) != mounts.Stale {
			return holdFree(cfg.Mountpoint)
		}
		log.Warn("clearing a stale mount, left by a process that died",
			"mountpoint", cfg.Mountpoint, "image", top.Source)
		if err := mounts.Detach(top, true); err != nil {
			return nil, fault.Mountf("%s: a stale mount is in the way and cannot be detached: %w",
				cfg.Mountpoint, err)
		}
	}
	return nil, fault.Mountf("%s: too many stale mounts on top of each other", cfg.Mountpoint)
}

// holdFree holds a mount point that is free.
func holdFree(dir string) (*mounts.Dir, error) {
	at, err := mounts.Hold(dir)
	if err != nil {
		fi, serr := os.Stat(dir)
		switch {
		case serr != nil:
			return nil, fault.Mountf("mount point: %w", serr)
		case !fi.IsDir():
			return nil, fault.Mountf("%s: the mount point is not a folder", dir)
		}
		return nil, fault.Mountf("mount point: %w", err)
	}
	if err := checkFree(at); err != nil {
		at.Close()
		return nil, err
	}
	return at, nil
}

// checkFree refuses a mount point that is in use or holds files.
func checkFree(at *mounts.Dir) error {
	table, err := mounts.Read()
	if err != nil {
		return err
	}
	if m := table.ByID(at.MountID()); m != nil && m.Point == at.Path() && m.FUSE() {
		return inUse(m)
	}
	name, err := at.First()
	if err == nil {
		return fault.Mountf("%s: the mount point is not empty (it holds %q)", at.Path(), name)
	}
	if err != io.EOF {
		return fault.Mountf("mount point: %w", err)
	}
	return nil
}

// inUse says what a FUSE mount at the mount point is.
func inUse(m *mounts.Mount) error {
	state, point := mounts.Probe(m), safetext.Shell(m.Point)
	switch {
	case m.Ours() && state == mounts.Alive:
		return fault.Mountf("%s: already mounted (%s); to remount: pfmount umount %s",
			m.Point, m.Source, point)
	case state == mounts.Hung:
		return fault.Mountf("%s: a mount of %s (%s) is here and does not answer; "+
			"to detach it: umount -l %s", m.Point, m.Source, m.Type, point)
	case state == mounts.Stale:
		return fault.Mountf("%s: a stale mount of another program (%s, %s) is here; "+
			"to clear it: fusermount3 -u -z %s", m.Point, m.Source, m.Type, point)
	}
	return fault.Mountf("%s: in use by another mount (%s, %s)", m.Point, m.Source, m.Type)
}
