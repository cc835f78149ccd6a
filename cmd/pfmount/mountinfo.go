package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fusefs"
)

// How long to look for the holders of a mount: the end of one has no more time, a person who waits for an answer has.
const (
	holdersAtEnd = 500 * time.Millisecond
	holdersAsked = 5 * time.Second
)

// mountInfo is one line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mountInfo struct {
	mountpoint string
	fstype     string
	source     string // IMAGE as it was typed, for ours
	uid, gid   int    // user_id and group_id of a FUSE mount, else -1
	dev        string // major:minor
}

func (m *mountInfo) isPfmount() bool { return m.fstype == "fuse.pfmount" }
func (m *mountInfo) isFuse() bool {
	return m.fstype == "fuse" || m.fstype == "fuseblk" || strings.HasPrefix(m.fstype, "fuse.")
}

// mounts lists what this process sees mounted, later ones above earlier ones.
func mounts() ([]mountInfo, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mountInfo
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m, ok := parseMountInfo(s.Text()); ok {
			all = append(all, m)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("mountinfo: %w", err)
	}
	return all, nil
}

func parseMountInfo(line string) (mountInfo, bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.SplitN(right, " ", 3)
	if !ok || len(l) < 5 || len(r) < 3 {
		return mountInfo{}, false
	}
	m := mountInfo{dev: l[2], mountpoint: fusefs.Unescape(l[4]), fstype: fusefs.Unescape(r[0]), source: fusefs.Unescape(r[1]), uid: -1, gid: -1}
	for _, opt := range strings.Split(r[2], ",") {
		name, v, _ := strings.Cut(opt, "=")
		n, err := strconv.Atoi(v)
		switch {
		case err != nil:
		case name == "user_id":
			m.uid = n
		case name == "group_id":
			m.gid = n
		}
	}
	return m, true
}

// mountAt returns the topmost mount whose mount point is dir, or nil.
func mountAt(dir string) (*mountInfo, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var top *mountInfo
	for i := range all {
		if all[i].mountpoint == dir {
			top = &all[i]
		}
	}
	return top, nil
}

// holders names the processes that use a mount, by open files, working folder, mapped programs, and the mounts that lie
// on it. At most a few, only those this user may look at, and only those found in time.
func holders(dir string, limit time.Duration) []string {
	const most = 8
	var out []string
	if all, err := mounts(); err == nil {
		for _, m := range all {
			if m.mountpoint != dir && within(m.mountpoint, dir) && len(out) < most {
				out = append(out, "the mount "+safetext.Plain(m.mountpoint))
			}
		}
	}
	end := time.Now().Add(limit)
	links, _ := filepath.Glob("/proc/[0-9]*/*")
	seen := make(map[string]bool)
	for _, name := range links {
		pid := strings.Split(name, "/")[2]
		if seen[pid] {
			continue
		}
		if len(out) == most || time.Now().After(end) {
			break
		}
		for _, link := range procLinks(name) {
			if target, err := os.Readlink(link); err == nil && within(target, dir) {
				seen[pid] = true
				comm, _ := os.ReadFile("/proc/" + pid + "/comm")
				out = append(out, pid+" ("+safetext.Plain(strings.TrimSpace(string(comm)))+")")
				break
			}
		}
	}
	return out
}

// procLinks returns the links below one entry of /proc/PID that can hold a
// mount.
func procLinks(name string) []string {
	switch filepath.Base(name) {
	case "cwd", "root", "exe":
		return []string{name}
	case "fd", "map_files":
		links, _ := filepath.Glob(name + "/*")
		return links
	}
	return nil
}
