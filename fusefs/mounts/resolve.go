package mounts

import (
	"fmt"
	"io/fs"
	"path/filepath"
)

// Resolve makes the path of a mount point absolute and free of symbolic links, also where a mount
// that hangs or is stale is seen: it is not asked anything.
func Resolve(name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("the mount point is empty: %w", fs.ErrInvalid)
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	dir, dirErr := filepath.EvalSymlinks(filepath.Dir(abs))
	point := filepath.Join(dir, filepath.Base(abs))
	if top, err := At(point); dirErr == nil && err == nil && top != nil && top.FUSE() {
		return point, nil // the lstat of EvalSymlinks might never return
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	if dirErr == nil {
		return point, nil
	}
	return abs, nil
}
