// Package mounts reads the kernel's mount table, proc_pid_mountinfo(5), and mounts, probes and
// unmounts FUSE file systems. It is the one reader of that table and the one meaning of "topmost".
// It promises that a mount is made on the directory that was checked or not at all, that only the
// mount that is meant is unmounted, wherever it is, and that a mount that hangs does not hold up
// the caller: only a process of Probe's asks a file system anything.
//
// It does not serve mounts, and does not know what they show.
package mounts

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Self is the table of this process.
const Self = "/proc/self/mountinfo"

// ours is the type of the mounts that pfmount makes.
const ours = "fuse." + Subtype

// maxLine bounds a line of the table. An overlay of hundreds of folders has some 100 KiB.
const maxLine = 1 << 20

// Mount is a line of the table.
type Mount struct {
	ID     int    // of the mount; the kernel gives it away again once the mount is gone
	Parent int    // the mount on which it is mounted; not in the table for the root
	Dev    string // major:minor of the file system, which all mounts of it share
	Point  string // the mount point, as this process sees it
	Type   string
	Source string // of pfmount's mounts the image, as it was typed
	Super  string // the file system's options, escapes resolved
	UID    int    // user_id of a FUSE mount, else -1
	GID    int    // group_id of a FUSE mount, else -1
}

// Ours reports whether pfmount has made the mount.
func (m *Mount) Ours() bool { return m.Type == ours }

// FUSE reports whether the mount is served by a process, which may hang or be dead.
func (m *Mount) FUSE() bool {
	return m.Type == "fuse" || m.Type == "fuseblk" || strings.HasPrefix(m.Type, "fuse.")
}

// Same reports whether n is a later look at the mount m, which may have been moved in between.
func (m *Mount) Same(n *Mount) bool { return n != nil && n.ID == m.ID && n.Dev == m.Dev }

// Read reads the table of this process.
func Read() (Table, error) { return ReadFile(Self) }

// ReadFile reads the table of a process, /proc/PID/mountinfo.
func ReadFile(name string) (Table, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return Parse(f)
}

// Parse reads a table. It leaves out lines that it does not understand.
func Parse(r io.Reader) (Table, error) {
	var t Table
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		if m, ok := parseLine(s.Text()); ok {
			t = append(t, m)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	return t, nil
}

// parseLine reads ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELD...] - TYPE SOURCE SUPER. A space
// always separates, since the kernel escapes those of names.
func parseLine(line string) (Mount, bool) {
	mount, fs, ok := strings.Cut(line, " - ")
	l, r := strings.Split(mount, " "), strings.SplitN(fs, " ", 3)
	if !ok || len(l) < 6 || len(r) < 3 {
		return Mount{}, false
	}
	id, idErr := strconv.Atoi(l[0])
	parent, parentErr := strconv.Atoi(l[1])
	m := Mount{
		ID: id, Parent: parent, Dev: l[2], Point: Unescape(l[4]),
		Type: Unescape(r[0]), Source: Unescape(r[1]), Super: Unescape(r[2]), UID: -1, GID: -1,
	}
	if idErr != nil || parentErr != nil || id < 0 || !strings.HasPrefix(m.Point, "/") {
		return Mount{}, false
	}
	for opt := range strings.SplitSeq(r[2], ",") {
		name, v, _ := strings.Cut(opt, "=")
		n, err := strconv.Atoi(v)
		switch {
		case err != nil:
		case name == "user_id":
			m.UID = n
		case name == "group_id":
			m.GID = n
		}
	}
	return m, true
}

// Unescape resolves the octal escapes of the table: \040 is a space.
func Unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
