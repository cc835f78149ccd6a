package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// How long to look for the holders of a mount: the end of one has no more time, a person who waits for an answer has.
const (
	holdersAtEnd = 500 * time.Millisecond
	holdersAsked = 5 * time.Second
)

// mountAt returns the mount that is seen at dir, or nil.
func mountAt(dir string) (*mounts.Mount, error) {
	table, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	return table.Top(dir), nil
}

// holders names the processes that use a mount, by open files, working folder, mapped programs, and the mounts that lie
// on it. At most a few, only those this user may look at, and only those found in time.
func holders(dir string, limit time.Duration) []string {
	const most = 8
	var out []string
	if table, err := mounts.Read(); err == nil {
		for _, m := range table {
			if m.Point != dir && within(m.Point, dir) && len(out) < most {
				out = append(out, "the mount "+safetext.Plain(m.Point))
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
