package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// mount is a tree that can be worked in now.
type mount struct {
	root  string                      // the tree's root folder
	pid   int                         // of the process behind it; 0: none
	took  time.Duration               // from the command to its return
	close func(context.Context) error // unmounts
}

// column is one way to have the tree; open mounts it anew.
type column struct {
	name string
	open func(context.Context) (*mount, error)
}

func (s *session) plainColumn() column {
	return column{disk(s.dir).kind, func(context.Context) (*mount, error) {
		return &mount{root: s.plain, close: func(context.Context) error { return nil }}, nil
	}}
}

// squashfuse is the fastest form of it that is installed; "": none.
func squashfuse() string {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		return ""
	}
	for _, name := range []string{"squashfuse_ll", "squashfuse"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// peers are the columns beside pfmount: the plain tree first.
func (s *session) peers() []column {
	list := []column{s.plainColumn()}
	if s.squash == "" {
		return list
	}
	return append(list, column{"squashfuse", func(ctx context.Context) (*mount, error) {
		at := s.path("mnt-squashfuse")
		if err := os.MkdirAll(at, 0o700); err != nil {
			return nil, err
		}
		before, start := s.servers(), time.Now()
		if _, err := s.run(ctx, "", squashfuse(), s.squash, at); err != nil {
			return nil, err
		}
		m := &mount{root: at, took: time.Since(start)}
		for _, pid := range s.servers() {
			if !slices.Contains(before, pid) {
				m.pid = pid
			}
		}
		m.close = func(ctx context.Context) error {
			_, err := s.run(ctx, "", "fusermount3", "-u", at)
			return err
		}
		return m, nil
	}})
}

// pfmount is the product with the cache in a folder below the place; fresh: an empty one each time. The old one
// stays: ext4 passes over each inode that was deleted in the last minute when it makes a file, which after
// thousands of them costs more than all the rest of a fill.
func (s *session) pfmount(name, cache string, fresh bool) column {
	return column{name, func(ctx context.Context) (*mount, error) {
		if fresh {
			s.caches[cache]++
		}
		at, dir := s.path("mnt-pfmount"), s.cache(cache)
		if err := os.MkdirAll(at, 0o700); err != nil {
			return nil, err
		}
		s.srv.Reset()
		start := time.Now()
		if _, err := s.run(ctx, "", s.binary, "--cache-dir", dir, s.ref, at); err != nil {
			return nil, err
		}
		m := &mount{root: at + "/world/fs", took: time.Since(start)}
		m.close = func(ctx context.Context) error {
			_, err := s.run(ctx, "", s.binary, "umount", at)
			return err
		}
		var err error
		m.pid, err = s.pfmountPID(ctx, at)
		return m, err
	}}
}

// cache is the folder of the present cache of a name.
func (s *session) cache(name string) string {
	return s.path(fmt.Sprintf("%s-%d", name, s.caches[name]))
}

// pfmountPID asks the mount for its process.
func (s *session) pfmountPID(ctx context.Context, at string) (int, error) {
	text, err := s.run(ctx, "", s.binary, "status", "--json", at)
	if err != nil {
		return 0, err
	}
	var all struct{ Mounts []struct{ PID int } }
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all.Mounts) != 1 || all.Mounts[0].PID == 0 {
		return 0, fmt.Errorf("status of %s names no process: %q", at, text)
	}
	return all.Mounts[0].PID, nil
}

// work is something to do in the tree.
type work struct{ name, script string }

// The scripts discard what they read. tar writes into a pipe, since it reads nothing when it sees /dev/null.
var (
	find   = work{"find", "find . >/dev/null"}
	list   = work{"ls -lR", "ls -lR . >/dev/null"}
	tarAll = work{"tar", "tar -cf - src | cat >/dev/null"}
	tarOne = work{"tar, one folder", "tar -cf - src/d0000 | cat >/dev/null"}
	grep   = work{"grep -r", "grep -r nosuchwordanywhere src; test $? = 1"}
	cat    = work{"cat, large file", "cat big.bin >/dev/null"}
)

// mountWork is the name under which the time of mounting is kept.
const mountWork = "mount"

// do does a piece of work in a tree and keeps its time.
func (s *session) do(ctx context.Context, c column, m *mount, w work) error {
	start := time.Now()
	if _, err := s.run(ctx, m.root, "sh", "-c", w.script); err != nil {
		return fmt.Errorf("%s: %s: %w", c.name, w.name, err)
	}
	s.results.add(w.name, c.name, time.Since(start))
	return nil
}

// sameTree fails unless a mount shows exactly the plain tree.
func (s *session) sameTree(ctx context.Context, m *mount) error {
	text, err := s.run(ctx, "", "diff", "-rq", s.plain, m.root)
	if err == nil && strings.TrimSpace(text) != "" {
		err = fmt.Errorf("%s differs: %s", m.root, text)
	}
	return err
}
