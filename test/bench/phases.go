package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
)

// afresh mounts a column anew for each group of works and does them, dropping the kernel's caches before
// each when drop is set. Works of a group touch different blobs, so that each meets its own for the first time.
func (s *session) afresh(ctx context.Context, c column, drop bool, groups ...[]work) error {
	for _, works := range groups {
		if err := s.group(ctx, c, drop, works); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) group(ctx context.Context, c column, drop bool, works []work) (err error) {
	m, err := c.open(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	defer func() { err = errors.Join(err, m.close(ctx)) }()
	if m.pid != 0 {
		s.results.add(mountWork, c.name, m.took)
	}
	for _, w := range works {
		if drop {
			if err := dropCaches(); err != nil {
				return err
			}
		}
		if err := s.do(ctx, c, m, w); err != nil {
			return err
		}
	}
	return nil
}

// everything reads all of the tree, in two groups since tar and grep read the same files.
func everything() [][]work { return [][]work{{find, list, tarAll, cat}, {grep}} }

// cold measures the first use ever: the kernel's caches dropped, pfmount's cache empty.
func (s *session) cold(ctx context.Context, out io.Writer) error {
	near, far := s.pfmount("pfmount cold", "cache-cold", true), s.pfmount(fmt.Sprintf("pfmount cold, %v a request", s.opts.delay), "cache-far", true)
	columns := append(s.peers(), near, far)
	s.results = results{}
	for range s.opts.runs {
		for _, c := range columns[:len(columns)-1] {
			if err := s.afresh(ctx, c, true, append(everything(), []work{tarOne})...); err != nil {
				return err
			}
		}
	}
	// A sequential reader of small files pays the delay for each, so there one folder has to do.
	rule := s.srv.On(faultreg.Match{}, faultreg.Delay(s.opts.delay))
	err := s.afresh(ctx, far, true, []work{find, list, tarOne, cat})
	rule.Off()
	if err != nil {
		return err
	}
	if err := s.downloads(ctx); err != nil {
		return err
	}
	s.results.print(out, "Cold: first use ever. The kernel's caches are "+dropped()+" before each row, pfmount's cache is empty, its registry on this machine.",
		columns, []string{mountWork, find.name, list.name, tarAll.name, tarOne.name, grep.name, cat.name})
	for _, line := range s.notes {
		fmt.Fprintln(out, line)
	}
	s.notes = nil
	return nil
}

// remount measures the first use after a remount: with the blobs in pfmount's disk cache, read from the
// disk, or from the kernel's page cache when drop is not set.
func (s *session) remount(ctx context.Context, out io.Writer) error {
	start := time.Now()
	if _, err := s.run(ctx, "", s.binary, "warm", "--cache-dir", s.cache("cache-kept"), s.ref); err != nil {
		return err
	}
	fmt.Fprintf(out, "pfmount warm: the whole image into an empty cache in %s\n", span(time.Since(start)))
	columns := append(s.peers(), s.pfmount("pfmount", "cache-kept", false))
	for _, drop := range []bool{true, false} {
		s.results = results{}
		for range s.opts.runs {
			for _, c := range columns {
				if err := s.afresh(ctx, c, drop, everything()...); err != nil {
					return err
				}
			}
		}
		title := "Remount, from the disk: mounted anew, the blobs in pfmount's cache, the kernel's caches " + dropped() + " before each row."
		if !drop {
			title = "Remount: mounted anew, the blobs in pfmount's cache, what lies below (cache, squashfs image) still in the page cache."
		}
		s.results.print(out, title, columns, []string{mountWork, find.name, list.name, tarAll.name, grep.name, cat.name})
	}
	return nil
}

// warm measures what the kernel's caches answer: everything was read before in the same mount.
func (s *session) warm(ctx context.Context, out io.Writer) (err error) {
	columns := append(s.peers(), s.pfmount("pfmount", "cache-kept", false))
	s.results = results{}
	mounts := make([]*mount, len(columns))
	for i, c := range columns {
		m, err := c.open(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		defer func() { err = errors.Join(err, m.close(ctx)) }()
		if mounts[i] = m; m.root == s.plain {
			continue
		}
		idle := s.resident(m)
		if err := s.sameTree(ctx, m); err != nil {
			return err
		}
		s.notes = append(s.notes, fmt.Sprintf("%s, second mount\t%s\t%s\t%s", c.name, idle, s.resident(m), peak(m)))
	}
	works := []work{find, list, tarAll, grep, cat}
	for _, w := range works {
		for run := range s.opts.runs + 1 { // the first one warms up
			if run == 1 {
				s.results.forget(w.name)
			}
			for i, c := range columns {
				if err := s.do(ctx, c, mounts[i], w); err != nil {
					return err
				}
			}
		}
	}
	s.results.print(out, "Warm: everything was read before in the same mount; the kernel's caches answer.",
		columns, []string{find.name, list.name, tarAll.name, grep.name, cat.name})
	return nil
}

// memory measures the process behind a mount: with an empty cache here, with a full one in warm.
func (s *session) memory(ctx context.Context, out io.Writer) (err error) {
	c := s.pfmount("pfmount", "cache-cold", true)
	m, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close(ctx)) }()
	idle := s.resident(m)
	if err := s.sameTree(ctx, m); err != nil {
		return err
	}
	s.notes = append(s.notes, fmt.Sprintf("pfmount, empty cache\t%s\t%s\t%s", idle, s.resident(m), peak(m)))
	fmt.Fprintln(out)
	table(out, append([]string{"memory of the process\tVmRSS mounted\tVmRSS all read\tVmHWM"}, s.notes...))
	files := s.opts.shape.folders*s.opts.shape.files + 1
	_, err = fmt.Fprintf(out, "Aim: 40 MB and 150 B a file, which is %s here.\n", size(40e6+150*int64(files)))
	return err
}

// resident is a process's memory, a moment after its last work.
func (s *session) resident(m *mount) string {
	time.Sleep(500 * time.Millisecond)
	return size(procBytes(fmt.Sprintf("/proc/%d/status", m.pid), "VmRSS"))
}

func peak(m *mount) string { return size(procBytes(fmt.Sprintf("/proc/%d/status", m.pid), "VmHWM")) }
