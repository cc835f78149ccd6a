package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// resolveMountpoint makes a mount point absolute and free of symlinks, also
// when it is a stale mount and cannot be asked anything.
func resolveMountpoint(name string) (string, error) {
	if name == "" {
		return "", usagef("the mount point is empty")
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	dir, dirErr := filepath.EvalSymlinks(filepath.Dir(abs))
	point := filepath.Join(dir, filepath.Base(abs))
	if top, err := mounts.At(point); dirErr == nil && err == nil && top != nil && top.FUSE() {
		return point, nil // a hung mount would never answer the lstat of EvalSymlinks
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	if dirErr == nil {
		return point, nil
	}
	return abs, nil
}

// checkMountpoint says what is wrong with a mount point before anything is
// fetched. It changes nothing.
func checkMountpoint(c *cli.Context, cfg *mountConfig) error {
	if err := checkApart(c, cfg); err != nil {
		return err
	}
	top, err := mounts.At(cfg.mountpoint)
	if err != nil {
		return err
	}
	if top != nil && top.Ours() && mounts.Probe(top) == mounts.Stale {
		return nil // cleared by the daemon, just before it mounts
	}
	at, err := holdFree(cfg.mountpoint)
	if err != nil {
		return err
	}
	return at.Close()
}

// checkApart refuses a mount point in the cache or the image's folder, or
// around them.
func checkApart(c *cli.Context, cfg *mountConfig) error {
	cacheDir, err := cacheDir(c)
	if err != nil {
		return err
	}
	for what, dir := range map[string]string{"cache": cacheDir, "image": cfg.ref.Dir()} {
		if dir == "" {
			continue
		}
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		if mounts.Within(dir, cfg.mountpoint) || mounts.Within(cfg.mountpoint, dir) {
			return mountf("%s: the mount point and the %s folder %s lie inside each other: a read would wait for itself; choose another mount point", cfg.mountpoint, what, dir)
		}
	}
	return nil
}

// takeMountpoint detaches stale mounts of ours, checks the mount point once more, and holds what it has checked until it is
// mounted on.
func takeMountpoint(c *cli.Context, cfg *mountConfig, log *slog.Logger) (*mounts.Dir, error) {
	if err := checkApart(c, cfg); err != nil {
		return nil, err
	}
	for range 16 { // stacked stale mounts; more than a few is somebody's loop
		top, err := mounts.At(cfg.mountpoint)
		if err != nil {
			return nil, err
		}
		if top == nil || !top.Ours() || mounts.Probe(top) != mounts.Stale {
			return holdFree(cfg.mountpoint)
		}
		log.Warn("clearing a stale mount, left by a process that died", "mountpoint", cfg.mountpoint, "image", top.Source)
		if err := mounts.Detach(top, true); err != nil {
			return nil, mountf("%s: a stale mount is in the way and cannot be detached: %w", cfg.mountpoint, err)
		}
	}
	return nil, mountf("%s: too many stale mounts on top of each other", cfg.mountpoint)
}

// holdFree holds a mount point that is free.
func holdFree(dir string) (*mounts.Dir, error) {
	at, err := mounts.Hold(dir)
	if err != nil {
		fi, serr := os.Stat(dir)
		switch {
		case serr != nil:
			return nil, mountf("mount point: %w", serr)
		case !fi.IsDir():
			return nil, mountf("%s: the mount point is not a folder", dir)
		}
		return nil, mountf("mount point: %w", err)
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
		return mountf("%s: the mount point is not empty (it holds %q)", at.Path(), name)
	}
	if err != io.EOF {
		return mountf("mount point: %w", err)
	}
	return nil
}

// inUse says what a FUSE mount at the mount point is.
func inUse(m *mounts.Mount) error {
	state := mounts.Probe(m)
	switch {
	case m.Ours() && state == mounts.Alive:
		return mountf("%s: already mounted (%s); to remount: pfmount umount %s", m.Point, m.Source, shellQuote(m.Point))
	case state == mounts.Hung:
		return mountf("%s: a mount of %s (%s) is here and does not answer; to detach it: umount -l %s", m.Point, m.Source, m.Type, shellQuote(m.Point))
	case state == mounts.Stale:
		return mountf("%s: a stale mount of another program (%s, %s) is here; to clear it: fusermount3 -u -z %s", m.Point, m.Source, m.Type, shellQuote(m.Point))
	}
	return mountf("%s: in use by another mount (%s, %s)", m.Point, m.Source, m.Type)
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// shellQuote makes a path fit to be pasted into a shell.
func shellQuote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !(r == '/' || r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z')
	}) < 0 {
		return s
	}
	return fmt.Sprintf("'%s'", strings.ReplaceAll(s, "'", `'\''`))
}
