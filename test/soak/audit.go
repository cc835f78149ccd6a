package soak

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// sum is what the cache folder takes on disk, without what is being filled, and the number of blobs.
func (c *store) sum() (bytes int64, blobs int) {
	filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile
		}
		if d.IsDir() && d.Name() == "tmp" {
			return fs.SkipDir
		}
		if fi, err := os.Lstat(path); err == nil {
			bytes += fi.Sys().(*syscall.Stat_t).Blocks * 512
			if len(d.Name()) == 64 {
				blobs++
			}
		}
		return nil
	})
	return bytes, blobs
}

// used is sum while files come and go: one that comes while another goes is in a sum with it, so
// the least of some sums counts. What is really too much stays until an eviction.
func (c *store) used() int64 {
	least, _ := c.sum()
	for range 9 {
		if least > c.size {
			n, _ := c.sum()
			least = min(least, n)
		}
	}
	return least
}

// audit hashes every blob of a cache that is at rest, and looks for leftovers.
func (c *store) audit() (blobs int, problems []string) {
	bad := func(format string, a ...any) {
		problems = append(problems, c.name+" cache: "+fmt.Sprintf(format, a...))
	}
	used, _ := c.sum()
	if used > c.size {
		bad("%d bytes on disk, the limit is %d", used, c.size)
	}
	usage, _ := os.ReadFile(c.dir + "/usage")
	var counted int64
	if _, err := fmt.Sscanf(string(usage), "%d", &counted); err != nil || counted < used {
		bad("%d bytes on disk, but usage says %.30q", used, usage)
	}
	left, _ := filepath.Glob(c.dir + "/tmp/*")
	for _, name := range left {
		bad("left in tmp: %s", filepath.Base(name))
	}
	err := filepath.WalkDir(c.dir+"/blobs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		hex, isSums := strings.CutSuffix(d.Name(), ".sums")
		if !fi.Mode().IsRegular() || len(hex) != 64 || filepath.Base(filepath.Dir(path)) != hex[:2] {
			bad("%s is no blob: %v", path, fi.Mode())
			return nil
		}
		if isSums {
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil && harness.SHA256(data) != hex {
			bad("%s has %d bytes that hash to something else", path, len(data))
		}
		blobs++
		return err
	})
	if err != nil {
		bad("%v", err)
	}
	return blobs, problems
}

// vital is what a process holds.
type vital struct {
	fds  []string // what descriptors point to
	held []string // those of blobs and of partial files
	peak int64    // bytes of memory at most so far
}

// vitals looks at a daemon; a daemon that ends meanwhile holds nothing.
func vitals(pid int, cache string) vital {
	var v vital
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		to, err := os.Readlink(dir + e.Name())
		if err != nil {
			continue
		}
		v.fds = append(v.fds, to)
		if strings.HasPrefix(to, cache+"/blobs/") && len(filepath.Base(to)) >= 64 ||
			strings.HasPrefix(to, cache+"/tmp/") {
			v.held = append(v.held, to)
		}
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.SplitSeq(string(status), "\n") {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Sscanf(strings.TrimPrefix(line, "VmHWM:"), "%d kB", &v.peak)
			v.peak <<= 10
		}
	}
	return v
}

// watch keeps the peaks and sees to the limits of the caches while all is going on.
func (s *stage) watch(ctx context.Context) {
	for sleep(ctx, 300*time.Millisecond) {
		for _, m := range s.mounts {
			v := vitals(m.daemon(), m.store.dir)
			s.counts.peak("a daemon's memory in bytes", v.peak)
			s.counts.peak("a daemon's descriptors", int64(len(v.fds)))
		}
		for _, c := range s.caches {
			used := c.used()
			s.counts.peak("bytes in the "+c.name+" cache", used)
			if limit := c.size + c.extra.Load(); used > limit {
				s.fail("%s cache: %d bytes on disk, the limit is %d", c.name, used, limit)
			}
		}
	}
}

// restLimit is how long daemons may take to give back what they hold: idle files are closed after
// 10 s, looked for every 2.5 s; the rest is for a busy machine.
const restLimit = 40 * time.Second

// loops is by how many the goroutines of a daemon at rest may differ: go-fuse keeps up to so many
// that wait for the next request.
const loops = 4

// disconnect closes every connection of the daemons: at rest they would stay open, with two
// goroutines each, for 90 s.
func (s *stage) disconnect() error {
	for _, srv := range []*faultreg.Server{s.registry, s.mirror} {
		srv.Stop()
		if err := srv.Start(); err != nil {
			return err
		}
	}
	s.proxy.Stop()
	return s.proxy.Start()
}

// atFirst notes what the daemons hold just after their mounts.
func (s *stage) atFirst(ctx context.Context) error {
	if err := s.disconnect(); err != nil {
		return err
	}
	sleep(ctx, time.Second) // for the daemons to see that
	for _, m := range s.mounts {
		state, err := s.status(m.dir)
		if err != nil {
			return err
		}
		v := vitals(state.PID, m.store.dir)
		m.goroutines, m.fds = state.Goroutines, len(v.fds)-len(v.held)
	}
	return nil
}

// rest waits until every daemon holds no more than just after its mount, and says what is left else.
func (s *stage) rest(ctx context.Context) (problems []string) {
	var last time.Time
	until(ctx, restLimit, func() bool {
		problems = nil
		if time.Since(last) > restLimit/5 { // what was being tried again connects anew
			if err := s.disconnect(); err != nil {
				problems = []string{err.Error()}
				return false
			}
			last = time.Now()
		}
		var daemons []int
		for _, m := range s.mounts {
			daemons = append(daemons, m.daemon())
			problems = append(problems, s.leaks(m)...)
		}
		for _, pid := range harness.Pids(s.env.Bin) {
			if !slices.Contains(daemons, pid) &&
				!slices.ContainsFunc(daemons,
					func(d int) bool { return harness.IsGuard(pid, d) }) && harness.Alive(pid) {
				problems = append(problems, fmt.Sprintf("process left: %d %q", pid, harness.Cmdline(pid)))
			}
		}
		for _, c := range s.caches {
			if left, _ := filepath.Glob(c.dir + "/tmp/*"); len(left) > 0 {
				problems = append(problems, fmt.Sprintf("left in tmp: %q", left))
			}
		}
		return len(problems) == 0
	})
	return problems
}

// leaks compares a daemon with itself just after its first mount.
func (s *stage) leaks(m *mount) (problems []string) {
	state, err := s.status(m.dir)
	if err != nil {
		return []string{err.Error()}
	}
	v := vitals(state.PID, m.store.dir)
	switch {
	case state.PID != m.daemon():
		problems = append(problems, fmt.Sprintf("%s is served by %d instead of %d", m.name,
			state.PID, m.daemon()))
	case len(v.held) > 0:
		problems = append(problems, fmt.Sprintf("%s holds %d files of the cache, such as %s",
			m.name, len(v.held), v.held[0]))
	case len(v.fds) > m.fds:
		problems = append(problems, fmt.Sprintf("%s holds %d descriptors, at first %d: %q", m.name,
			len(v.fds), m.fds, v.fds))
	case state.Goroutines > m.goroutines+loops:
		problems = append(problems, fmt.Sprintf("%s has %d goroutines, at first %d", m.name,
			state.Goroutines, m.goroutines))
	}
	return problems
}
