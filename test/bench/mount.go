package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mount is a tree that can be worked in now.
type mount struct {
	root  string                      // the tree's root folder
	pid   int                         // of the process behind it; 0: none
	took  time.Duration               // until the tree could be read
	close func(context.Context) error // unmounts
}

// column is one way to have the tree; open mounts it anew.
type column struct {
	name string
	open func(context.Context) (*mount, error)
}

// mountOptions say how pfmount is mounted in a column.
type mountOptions struct {
	cache string // name of its cache
	fresh bool   // an empty cache at each mount
}

// columns are the plain tree, the peers, and pfmount last.
func (s *session) columns(product column) []column {
	list := []column{{disk(s.plain).kind, func(context.Context) (*mount, error) {
		return &mount{root: s.plain, close: func(context.Context) error { return nil }}, nil
	}}}
	for _, p := range s.peers {
		list = append(list, column{p.name, func(ctx context.Context) (*mount, error) {
			if err := s.broken[p.name]; err != nil {
				return nil, err
			}
			return p.mount(ctx, s)
		}})
	}
	return append(list, product)
}

// isPeer tells whether a column is a peer's.
func (s *session) isPeer(c column) bool {
	return slices.ContainsFunc(s.peers, func(p peer) bool { return p.name == c.name })
}

// pfmount is the product. An old cache stays: ext4 passes over each inode that was deleted in the
// last minute when it makes a file, which after thousands of them costs more than all the rest of a
// fill.
func (s *session) pfmount(name string, o mountOptions) column {
	return column{name, func(ctx context.Context) (*mount, error) {
		if o.fresh {
			s.caches[o.cache]++
		}
		s.srv.Reset()
		return s.mountImage(ctx, s.ref, s.cache(o.cache), "/world/fs")
	}}
}

// cache is the folder of the present cache of a name.
func (s *session) cache(name string) string {
	return s.path(fmt.Sprintf("%s-%d", name, s.caches[name]))
}

// mountImage mounts an image with a cache, and gives the folder below of it as the root.
func (p *place) mountImage(ctx context.Context, ref, cache, below string, args ...string) (*mount, error) {
	at := p.path("mnt-pfmount")
	if err := p.mkdir("mnt-pfmount"); err != nil {
		return nil, err
	}
	start := time.Now()
	if _, err := p.run(ctx, "", p.binary, append(args, "--cache-dir", cache, ref, at)...); err != nil {
		return nil, err
	}
	m := &mount{root: at + below, took: time.Since(start)}
	m.close = func(ctx context.Context) error {
		_, err := p.run(ctx, "", p.binary, "umount", at)
		return err
	}
	var err error
	if m.pid, err = p.servedBy(ctx, at); err != nil {
		detach(at)
		return nil, err
	}
	return m, nil
}

// servedBy asks the mount for its process.
func (p *place) servedBy(ctx context.Context, at string) (int, error) {
	text, err := p.run(ctx, "", p.binary, "status", "--json", at)
	if err != nil {
		return 0, err
	}
	var all struct{ Mounts []struct{ PID int } }
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all.Mounts) != 1 ||
		all.Mounts[0].PID == 0 {
		return 0, fmt.Errorf("status of %s names no process: %q", at, text)
	}
	return all.Mounts[0].PID, nil
}

// resident is a process's memory when it has been idle for a while.
func resident(pid int) float64 {
	time.Sleep(idle)
	return float64(procBytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"))
}

// idle is long enough for a process to have given back what its last work took.
const idle = 3 * time.Second

func peak(pid int) float64 { return float64(procBytes(fmt.Sprintf("/proc/%d/status", pid), "VmHWM")) }

// ticks is USER_HZ, which Linux fixes at 100 for every program that reads /proc.
const ticks = 100

// cpuTime is the processor time that a process has taken so far, user and system.
func cpuTime(pid int) time.Duration {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // a process that ended has no numbers
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticks
}
