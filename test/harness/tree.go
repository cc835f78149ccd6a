package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/test/imgbuild"
)

// Node is one name of a walked tree, as stat says it.
type Node struct {
	Path   string
	Kind   string // "file", "dir", "symlink", or "other"
	Mode   uint32 // 07777
	Size   int64
	Target string
	SHA256 string // of files, when asked for
	Stat   unix.Stat_t
}

// Walk lists everything below dir, folders before what is in them. It opens each name from its folder's
// descriptor, so that paths longer than the kernel's limit for one call are seen too.
func Walk(dir string, hash bool) ([]Node, error) {
	root, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	w := walker{hash: hash}
	err = w.dir(root, "")
	return w.nodes, err
}

type walker struct {
	hash  bool
	nodes []Node
}

// dir lists an open folder, which it closes.
func (w *walker) dir(f *os.File, prefix string) error {
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("read folder %q: %w", prefix, err)
	}
	for _, name := range names {
		if err := w.name(int(f.Fd()), name, prefix+name); err != nil {
			return fmt.Errorf("%q: %w", prefix+name, err)
		}
	}
	return nil
}

func (w *walker) name(dir int, name, path string) error {
	n := Node{Path: path}
	if err := unix.Fstatat(dir, name, &n.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	n.Mode, n.Size = n.Stat.Mode&0o7777, n.Stat.Size
	switch n.Stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.Kind = "dir"
		w.nodes = append(w.nodes, n)
		sub, err := openAt(dir, name, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		return w.dir(sub, path+"/")
	case unix.S_IFLNK:
		n.Kind = "symlink"
		b := make([]byte, 8192)
		c, err := unix.Readlinkat(dir, name, b)
		if err != nil {
			return err
		}
		n.Target = string(b[:c])
	case unix.S_IFREG:
		n.Kind = "file"
		if w.hash {
			var err error
			if n.SHA256, err = hashAt(dir, name); err != nil {
				return err
			}
		}
	default:
		n.Kind = "other"
	}
	w.nodes = append(w.nodes, n)
	return nil
}

func openAt(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func hashAt(dir int, name string) (string, error) {
	f, err := openAt(dir, name, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Diff tells how a walked tree differs from what it must be; files are compared by content when both
// sides have a hash.
func Diff(got []Node, want []imgbuild.Want) []string {
	var diff []string
	byPath := map[string]*Node{}
	for i := range got {
		if byPath[got[i].Path] != nil {
			diff = append(diff, fmt.Sprintf("%q is listed twice", got[i].Path))
		}
		byPath[got[i].Path] = &got[i]
	}
	for _, w := range want {
		n := byPath[w.Path]
		if n == nil {
			diff = append(diff, fmt.Sprintf("%q is missing", w.Path))
			continue
		}
		delete(byPath, w.Path)
		if d := n.diff(w); d != "" {
			diff = append(diff, fmt.Sprintf("%q: %s", w.Path, d))
		}
	}
	for i := range got {
		if byPath[got[i].Path] != nil {
			diff = append(diff, fmt.Sprintf("%q should not be there", got[i].Path))
		}
	}
	return diff
}

func (n *Node) diff(w imgbuild.Want) string {
	mode := fmt.Sprintf("%04o", n.Mode)
	switch {
	case n.Kind != w.Kind:
		return fmt.Sprintf("kind %s, want %s", n.Kind, w.Kind)
	case w.Mode != "" && mode != w.Mode:
		return fmt.Sprintf("mode %s, want %s", mode, w.Mode)
	case w.Kind == "symlink" && n.Target != w.Target:
		return fmt.Sprintf("target %q, want %q", n.Target, w.Target)
	case w.Kind == "symlink" && n.Size != int64(len(w.Target)):
		return fmt.Sprintf("size %d, want the target's %d", n.Size, len(w.Target))
	case w.Kind == "file" && n.Size != w.Size:
		return fmt.Sprintf("size %d, want %d", n.Size, w.Size)
	case w.Kind == "file" && n.SHA256 != "" && w.SHA256 != "" && n.SHA256 != w.SHA256:
		return fmt.Sprintf("content %s, want %s", n.SHA256, w.SHA256)
	}
	return ""
}
