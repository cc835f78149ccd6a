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

	"github.com/pfmount/pfmount/fusefs"
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
	if top, err := mountAt(point); dirErr == nil && err == nil && top != nil && top.isFuse() {
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
		if within(dir, cfg.mountpoint) || within(cfg.mountpoint, dir) {
			return mountf("%s: the mount point and the %s folder %s lie inside each other: a read would wait for itself; choose another mount point", cfg.mountpoint, what, dir)
		}
	}
	top, err := mountAt(cfg.mountpoint)
	if err != nil {
		return err
	}
	if top != nil && top.isPfmount() && top.probe() == stale {
		return nil // cleared by the daemon, just before it mounts
	}
	return checkFree(cfg.mountpoint, top)
}

// clearMountpoint detaches stale mounts of ours and checks that nothing else
// is in the way.
func clearMountpoint(cfg *mountConfig, log *slog.Logger) error {
	for range 16 { // stacked stale mounts; more than a few is somebody's loop
		top, err := mountAt(cfg.mountpoint)
		if err != nil {
			return err
		}
		if top == nil || !top.isPfmount() || top.probe() != stale {
			return checkFree(cfg.mountpoint, top)
		}
		log.Warn("clearing a stale mount, left by a process that died", "mountpoint", cfg.mountpoint, "image", top.source)
		if err := fusefs.Unmount(cfg.mountpoint, true); err != nil {
			return mountf("%s: a stale mount is in the way and cannot be detached: %w", cfg.mountpoint, err)
		}
	}
	return mountf("%s: too many stale mounts on top of each other", cfg.mountpoint)
}

// checkFree refuses a mount point that is in use, is no folder or holds files.
func checkFree(dir string, top *mountInfo) error {
	if top != nil && top.isFuse() {
		state := top.probe()
		switch {
		case top.isPfmount() && state == alive:
			return mountf("%s: already mounted (%s); to remount: pfmount umount %s", dir, top.source, shellQuote(dir))
		case state == hung:
			return mountf("%s: a mount of %s (%s) is here and does not answer; to detach it: umount -l %s", dir, top.source, top.fstype, shellQuote(dir))
		case state == stale:
			return mountf("%s: a stale mount of another program (%s, %s) is here; to clear it: fusermount3 -u -z %s", dir, top.source, top.fstype, shellQuote(dir))
		default:
			return mountf("%s: in use by another mount (%s, %s)", dir, top.source, top.fstype)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		return mountf("mount point: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return mountf("mount point: %w", err)
	}
	if !fi.IsDir() {
		return mountf("%s: the mount point is not a folder", dir)
	}
	if names, err := f.Readdirnames(1); err != io.EOF {
		if err != nil {
			return mountf("mount point: %w", err)
		}
		return mountf("%s: the mount point is not empty (it holds %q)", dir, names[0])
	}
	return nil
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
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
