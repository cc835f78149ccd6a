package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// errChanged says that a name became something else, or a file other bytes, while it was captured.
var errChanged = errors.New("it changed while it was read; capture again when nothing writes to it")

// folder is an open folder of the walk.
type folder struct {
	file  *os.File
	real  string // its path on disk, for messages
	path  string // as recorded, with a slash at its end; "": the root
	depth int
}

// walk records everything below dir: folders before what is in them, the names of a folder in the
// order of their bytes, which is the reference's order, part by part.
func (t *tree) walk(ctx context.Context, dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return source(dir, err)
	}
	return t.folder(ctx, folder{file: f, real: dir})
}

// folder records what is in a folder, and closes it.
func (t *tree) folder(ctx context.Context, f folder) error {
	defer f.file.Close()
	names, err := f.file.Readdirnames(-1)
	if err != nil {
		return source(f.real, err)
	}
	slices.Sort(names)
	twins := findTwins(names)
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(f.file.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return source(f.join(name), changed(err))
		}
		if err := twins.check(f, name, st.Mode); err != nil {
			return err
		}
		if twins.isTwin(name) {
			t.log.Warn(
				"two names become one path, since they are not UTF-8; "+
					"the last is what a mount shows",
				"path", f.join(name), "recorded", f.path+lossy(name))
		}
		if err := t.name(ctx, f, name, &st); err != nil {
			return err
		}
	}
	return nil
}

func (f folder) join(name string) string { return filepath.Join(f.real, name) }

// name records one name and everything below it.
func (t *tree) name(ctx context.Context, f folder, name string, st *unix.Stat_t) error {
	e := &entry{path: f.path + lossy(name), mode: st.Mode & 0o7777}
	if t.entries++; t.entries > t.most {
		return source(f.join(name),
			fmt.Errorf("an image has at most %d files, folders and symlinks", t.most))
	}
	if err := checkLimits(e.path, f.depth+1); err != nil {
		return source(f.join(name), err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		sub, err := f.open(name, st, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		e.kind = pfimg.Dir
		if err := t.emit(ctx, e); err != nil {
			sub.Close()
			return err
		}
		return t.folder(ctx,
			folder{file: sub, real: f.join(name), path: e.path + "/", depth: f.depth + 1})
	case unix.S_IFREG:
		file, err := f.open(name, st, unix.O_NONBLOCK|unix.O_NOCTTY)
		if err != nil {
			return err
		}
		e.kind, e.size, e.file = pfimg.File, st.Size, &regular{
			file:   file,
			path:   f.join(name),
			before: *st,
		}
		return t.emit(ctx, e)
	case unix.S_IFLNK:
		return t.symlink(ctx, f, name, e)
	}
	t.report.Skipped++
	t.log.Warn("left out of the image: it is "+special(st.Mode), "path", f.join(name))
	return nil
}

// symlink records where a symlink points. Nobody looks whether anything is there.
func (t *tree) symlink(ctx context.Context, f folder, name string, e *entry) error {
	buf := make([]byte, pfimg.MaxLink+1)
	n, err := unix.Readlinkat(int(f.file.Fd()), name, buf)
	if err != nil {
		return source(f.join(name), changed(err))
	}
	e.kind, e.link = pfimg.Symlink, lossy(string(buf[:n]))
	e.size = int64(len(e.link))
	if n == 0 || len(e.link) > pfimg.MaxLink {
		return source(
			f.join(name),
			fmt.Errorf("a symlink to a name of %d bytes; 1 to %d are possible", len(e.link),
				pfimg.MaxLink),
		)
	}
	if e.blob, err = t.store.put([]byte(e.link)); err != nil {
		return err
	}
	return t.emit(ctx, e)
}

// open opens what stat saw under a name, and nothing else.
func (f folder) open(name string, st *unix.Stat_t, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(f.file.Fd()), name,
		unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, source(f.join(name), changed(err))
	}
	file := os.NewFile(uintptr(fd), f.join(name))
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		file.Close()
		return nil, source(f.join(name), err)
	}
	if now.Dev != st.Dev || now.Ino != st.Ino || now.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT {
		file.Close()
		return nil, source(f.join(name), errChanged)
	}
	return file, nil
}

// changed turns what a name answers that was something else a moment ago into errChanged.
func changed(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ENXIO) {
		return errChanged
	}
	return err
}

// checkLimits says why a path could not be mounted.
func checkLimits(path string, depth int) error {
	switch {
	case len(path)-lastSlash(path)-1 > pfimg.MaxName:
		return fmt.Errorf("recorded, its name has more than %d bytes", pfimg.MaxName)
	case len(path) > pfimg.MaxPath:
		return fmt.Errorf("recorded, its path has more than %d bytes", pfimg.MaxPath)
	case depth > pfimg.MaxDepth:
		return fmt.Errorf("it is more than %d folders deep", pfimg.MaxDepth)
	}
	return nil
}
