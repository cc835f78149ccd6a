package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
)

// part is what can be measured alone. Its order is that of the tables.
type part struct {
	name  string
	users bool // again as the ordinary user
	do    func(*bench, context.Context, *place) ([]*gathered, error)
}

// parts are all of them. Those that need the large session follow one another.
var parts = []part{
	{"warm", true, onSession((*session).warm)},
	{"remount", true, onSession((*session).remount)},
	{"cold", true, onSession((*session).cold)},
	{"first-file", false, onSession((*session).firstFile)},
	{"fill", false, onSession((*session).fill)},
	{"memory", false, onSession((*session).memory)},
	{"distance", false, (*bench).distance},
	{"carry", false, (*bench).carry},
	{"one-file", false, (*bench).oneFile},
	{"forks", false, (*bench).forks},
	{"growth", false, (*bench).growth},
	{"size", false, (*bench).size},
}

func partNames() (names []string) {
	for _, part := range parts {
		names = append(names, part.name)
	}
	return names
}

// bench is one run of parts.
type bench struct {
	*place
	opts    options
	report  *report.Report
	product string // version
	session *session
	failed  []string
	started time.Time
}

// onSession makes a part of what is measured on the large session, which is built for the first of them.
func onSession(do func(*session, context.Context) ([]*gathered, error)) func(*bench, context.Context, *place) ([]*gathered, error) {
	return func(b *bench, ctx context.Context, p *place) ([]*gathered, error) {
		if b.session == nil {
			s, err := newSession(ctx, b.place, b.opts)
			if err != nil {
				return nil, fmt.Errorf("session: %w", err)
			}
			b.session = s
		}
		s := *b.session
		s.place = p
		s.caches = map[string]int{}
		return do(&s, ctx)
	}
}

func (b *bench) closeSession() error {
	if b.session == nil {
		return nil
	}
	return b.session.srv.Close()
}

// measure does a part as each of its users, and keeps the tables at once. A part that fails is a
// table that says so; only an interrupt ends the bench.
func (b *bench) measure(ctx context.Context, p part) error {
	places := []*place{b.place}
	if p.users && b.opts.user != "" && b.opts.user != b.name {
		other, err := b.as(b.opts.user)
		if err != nil {
			return err
		}
		places = append(places, other)
	}
	var tables []report.Table
	for _, at := range places {
		fmt.Fprintf(os.Stderr, "bench: %s as %s, after %v, load %s\n", p.name, at.name,
			time.Since(b.started).Round(time.Second), load())
		before, start := load(), time.Now()
		list, err := p.do(b, ctx, at)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			failed := gather("FAILED: "+p.name, report.NoBase)
			failed.notes = append(failed.notes, "This part could not be measured: "+err.Error())
			list = append(list, failed)
			b.failed = append(b.failed, p.name+": "+err.Error())
		}
		for _, g := range list {
			t := g.table()
			t.Section, t.User, t.Date, t.Product, t.Quick = p.name, at.name, start, b.product, b.opts.quick
			t.Load, t.Took = [2]string{before, load()}, time.Since(start).Seconds()
			for i, name := range partNames() {
				if name == p.name {
					t.Order = i
				}
			}
			tables = append(tables, t)
			b.failed = append(b.failed, g.failures...)
		}
	}
	b.report.Replace(p.name, tables)
	b.report.Date = time.Now()
	if b.opts.out == "" {
		return nil
	}
	return b.report.Save(b.opts.out)
}

// turns counts runs: as many as were asked for, or as fit into the time of a table, and one at least.
func (o options) turns() iter.Seq[int] {
	return func(yield func(int) bool) {
		start := time.Now()
		for run := range o.runs {
			spent := time.Since(start)
			if run > 0 && spent+spent/time.Duration(run) > o.time || !yield(run) {
				return
			}
		}
	}
}

// inTurn walks a list forwards and backwards by turns, so that no tool always follows the same one.
func inTurn[T any](run int, list []T) iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		for i := range list {
			if run%2 == 1 {
				i = len(list) - 1 - i
			}
			if !yield(i, list[i]) {
				return
			}
		}
	}
}

// load is the load average of the last minute.
func load() string {
	data, _ := os.ReadFile("/proc/loadavg") // without it there is none to tell
	first, _, _ := strings.Cut(string(data), " ")
	return first
}

// errAbsent is why a program was not measured: how to install it.
type errAbsent string

func (e errAbsent) Error() string { return string(e) }

// absent tells whether nothing failed and only a program is missing.
func absent(err error) bool {
	var a errAbsent
	return errors.As(err, &a)
}
