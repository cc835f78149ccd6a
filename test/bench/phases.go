package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
	"github.com/pfmount/pfmount/test/faultreg"
)

// mountWork is the line of the time of mounting.
const mountWork = "mount"

// warmUp fills the cache that warm and remount use.
func (s *session) warmUp(ctx context.Context) error {
	_, err := s.run(ctx, "", s.binary, "warm", "--cache-dir", s.cache("cache-kept"), s.ref)
	return err
}

// warm measures what the kernel's caches answer: everything was read before in the same mount.
func (s *session) warm(ctx context.Context) (_ []*gathered, err error) {
	if err := s.warmUp(ctx); err != nil {
		return nil, err
	}
	g := gather("Warm: everything was read before in the same mount", report.FirstColumn)
	g.note("%s", s.describe())
	for _, p := range s.peers {
		g.note("%s", p.note)
	}
	columns := s.columns(s.pfmount("pfmount", mountOptions{cache: "cache-kept"}))
	mounts := make([]*mount, len(columns))
	for i, c := range columns {
		g.cell(find.name, c.name) // the order of the columns
		m, err := c.open(ctx)
		if err == nil && m.root != s.plain {
			if err = s.sameTree(ctx, m); err != nil {
				err = errors.Join(err, m.close(ctx))
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			for _, w := range allWork {
				g.fail(w.name, c.name, err)
			}
			continue
		}
		mounts[i] = m
		defer func() { err = errors.Join(err, m.close(ctx)) }()
	}
	for run := range s.opts.turns() {
		for _, w := range allWork {
			for i, c := range inTurn(run, columns) {
				for n := 0; mounts[i] != nil && n < quickRuns &&
					!(g.median(w.name, c.name) > quickWork.Seconds()); n++ {
					s.keep(ctx, g, c, mounts[i], w)
				}
			}
		}
	}
	for _, w := range aims {
		g.target("warm "+w.name+", to ext4", g.median(w.name, "pfmount")/g.median(w.name,
			columns[0].name), 1.5, report.Times)
		g.aheadOfPeers("warm ", w, columns)
	}
	return []*gathered{g}, nil
}

// aheadOfPeers notes the aim that pfmount, the last column, is ahead of all others but ext4, the first one.
func (g *gathered) aheadOfPeers(when string, w work, columns []column) {
	best := math.NaN()
	for _, c := range columns[1 : len(columns)-1] {
		if v := g.median(w.name, c.name); !(best <= v) && v == v {
			best = v
		}
	}
	g.target(when+w.name+", to the fastest peer but ext4",
		g.median(w.name, columns[len(columns)-1].name)/best, 1, report.Times)
}

// Work that is warm and takes no longer than quickWork is measured so many times in a turn.
const (
	quickWork = time.Second
	quickRuns = 3
)

// slowWork is the time from which a peer's work is measured once: its runs differ by less than that says.
const slowWork = 3 * time.Second

// keep does a piece of work and keeps its time, or why there is none.
func (s *session) keep(ctx context.Context, g *gathered, c column, m *mount, w work) {
	if s.isPeer(c) && g.median(w.name, c.name) > slowWork.Seconds() {
		return
	}
	took, err := s.do(ctx, m, w)
	if err != nil {
		if ctx.Err() == nil {
			g.fail(w.name, c.name, err)
		}
		return
	}
	g.took(w.name, c.name, took)
}

// afresh mounts a column anew for each group of works and does them, after the kernel's caches were
// dropped when drop is set. Works of a group touch different blobs, so that each meets its own for
// the first time.
func (s *session) afresh(ctx context.Context, g *gathered, c column, drop bool, groups ...[]work) error {
	for _, works := range groups {
		m, err := c.open(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			for _, w := range works {
				g.fail(w.name, c.name, err)
			}
			continue
		}
		if m.pid != 0 {
			g.took(mountWork, c.name, m.took)
		}
		for _, w := range works {
			if drop {
				if err := dropCaches(); err != nil {
					return errors.Join(err, m.close(ctx))
				}
			}
			s.keep(ctx, g, c, m, w)
		}
		if err := m.close(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// everything reads all of the tree in groups, since tar, grep and the readers read the same files,
// and the last four the same one.
func everything() [][]work {
	return [][]work{{find, list, tarAll, cat}, {grep, random}, {parallel, mmap}}
}

// remount measures the first use after a remount: with the blobs in pfmount's disk cache, read from
// the disk, or, as root, also from the kernel's page cache.
func (s *session) remount(ctx context.Context) ([]*gathered, error) {
	if err := s.warmUp(ctx); err != nil {
		return nil, err
	}
	columns := s.columns(s.pfmount("pfmount", mountOptions{cache: "cache-kept"}))
	tables := []*gathered{gather("Remount, from the disk: mounted anew, the kernel's caches "+dropped()+" before each line", report.FirstColumn)}
	if s.cred == nil {
		tables = append(tables, gather("Remount: mounted anew, what lies below (cache, image, repository) still in the page cache", report.FirstColumn))
	}
	for i, g := range tables {
		g.note("%s", s.describe())
		for _, w := range append([]work{{name: mountWork}}, allWork...) {
			g.cell(w.name, columns[0].name)
		}
		if i > 0 { // what the table before dropped
			if _, err := s.run(ctx, s.dir, "sh", "-c",
				"find . -xdev -type f -exec cat {} + >/dev/null"); err != nil {
				return nil, err
			}
		}
		for run := range s.opts.turns() {
			for _, c := range inTurn(run, columns) {
				if err := s.afresh(ctx, g, c, i == 0, everything()...); err != nil {
					return nil, err
				}
			}
		}
		for _, w := range aims {
			g.aheadOfPeers([]string{"remounted, from the disk: ", "remounted: "}[i], w, columns)
		}
	}
	return tables, nil
}

// delays are what each request takes longer, in the tables of distance.
var delays = []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond}

// cold measures the first use ever: the kernel's caches dropped, pfmount's cache empty, the
// registry near and far: there once, and without what takes as long as tar.
func (s *session) cold(ctx context.Context) ([]*gathered, error) {
	g := gather("Cold: the first use ever, pfmount's cache empty, the kernel's caches "+dropped()+" before each line", report.FirstColumn)
	g.note("%s", s.describe())
	plain := s.columns(column{})[0]
	for _, w := range append([]work{{name: mountWork}}, find, list, tarOne, tarAll, grep, parallel,
		cat, random, mmap) {
		g.cell(w.name, plain.name)
	}
	for run := range s.opts.turns() {
		if err := s.afresh(ctx, g, plain, true, append(everything(), []work{tarOne})...); err != nil {
			return nil, err
		}
		for _, delay := range delays {
			groups := append(everything(), []work{tarOne})
			if delay > 0 {
				groups = [][]work{{find, list, tarAll, cat}, {tarOne, random}, {mmap}}
			}
			if delay > 0 && run > 0 {
				continue // a delay is the same each time
			}
			name := fmt.Sprintf("pfmount, %d ms", delay.Milliseconds())
			rule := s.srv.On(faultreg.Match{}, faultreg.Delay(delay))
			err := s.afresh(ctx, g, s.pfmount(name, mountOptions{cache: "cache-cold", fresh: true}),
				true, groups...)
			rule.Off()
			if err != nil {
				return nil, err
			}
		}
	}
	g.note("Milliseconds are those that each request takes longer; the peers' first use is that of the remount. A single random read that is cold waits for the whole file, since nothing is served before it is verified; the line gives the mean of all.")
	return []*gathered{g}, nil
}

// memory measures the process behind a mount of the large session: with an empty cache, and with a full one.
func (s *session) memory(ctx context.Context) ([]*gathered, error) {
	g := gather("Memory of the process that serves the large session", report.NoBase)
	for _, way := range []struct {
		name  string
		fresh bool
	}{{"empty cache", true}, {"second mount", false}} {
		m, err := s.pfmount("pfmount", mountOptions{cache: "cache-memory", fresh: way.fresh}).open(ctx)
		if err != nil {
			return nil, err
		}
		g.add(way.name, "idle after the mount", report.Bytes, resident(m.pid))
		err = s.sameTree(ctx, m)
		g.add(way.name, "idle after all was read", report.Bytes, resident(m.pid))
		g.add(way.name, "peak", report.Bytes, peak(m.pid))
		if err := errors.Join(err, m.close(ctx)); err != nil {
			return nil, err
		}
	}
	files := s.opts.shape.folders*s.opts.shape.files + 1
	g.target("memory of the large session, idle after all was read",
		g.median("empty cache", "idle after all was read"), memoryAim(files), report.Bytes)
	return []*gathered{g}, nil
}

// memoryAim is 40 MB, and 150 B a file.
func memoryAim(files int) float64 { return 40e6 + 150*float64(files) }
