package mounts

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// maxHolders bounds how many users of a mount are named.
const maxHolders = 8

// Holders names the processes that use the mount at dir, by open files, working directory, mapped
// programs, and the mounts that lie on it. It names a few at most, only those that this user may
// look at, and only those found within limit.
func Holders(dir string, limit time.Duration) []string {
	var out []string
	if table, err := Read(); err == nil {
		for _, m := range table {
			if m.Point != dir && Within(m.Point, dir) && len(out) < maxHolders {
				out = append(out, "the mount "+safetext.Plain(m.Point))
			}
		}
	}
	end := time.Now().Add(limit)
	links, _ := filepath.Glob("/proc/[0-9]*/*") // the pattern is well formed
	seen := make(map[string]bool)
	for _, name := range links {
		pid := strings.Split(name, "/")[2]
		if seen[pid] {
			continue
		}
		if len(out) == maxHolders || time.Now().After(end) {
			break
		}
		for _, link := range procLinks(name) {
			if target, err := os.Readlink(link); err == nil && Within(target, dir) {
				seen[pid] = true
				comm, _ := os.ReadFile("/proc/" + pid + "/comm") // empty of a process that is gone
				comm = []byte(safetext.Plain(strings.TrimSpace(string(comm))))
				out = append(out, pid+" ("+string(comm)+")")
				break
			}
		}
	}
	return out
}

// procLinks returns the links below one entry of /proc/PID that can hold a mount.
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

// Within reports whether path is dir or below it.
func Within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
