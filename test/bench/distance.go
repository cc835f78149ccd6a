package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
	"github.com/pfmount/pfmount/test/faultreg"
)

// The ways to have read a whole cold session, as lines of the table.
const (
	lazily   = "pfmount: mount, tar"
	warmed   = "pfmount: warm, mount, tar"
	orasThen = "oras copy, 32 connections, tar"
	orasOnly = "oras copy alone"
	ideal    = "plain GETs, 32 connections"
	pfPull   = "pf pull alone"
)

// distance measures a cold session of many small files, read whole once, beside tools that fetch it
// all first.
func (b *bench) distance(ctx context.Context, p *place) (_ []*gathered, err error) {
	c, err := newCarrier(ctx, p, b.opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.srv.Close()) }()
	folders, files := b.opts.carryShape()
	g := gather(fmt.Sprintf("Over distance: a cold session of %d small files, read whole",
		folders*files), report.FirstRow)
	for _, way := range []string{lazily, warmed, orasThen, orasOnly, ideal, pfPull} {
		g.cell(way, atDelay(0))
	}
	for _, delay := range delays {
		rule := c.srv.On(faultreg.Match{}, faultreg.Delay(delay))
		err := c.distantly(ctx, g, delay)
		rule.Off()
		if err != nil {
			return nil, err
		}
	}
	g.note("tar reads all of it, in order, by one reader, into a pipe. oras leaves a layout, whose tar reads blobs as they were sent: nothing was " +
		"decoded or checked against the signed tree. Plain GETs check and keep nothing: the registry's own limit. pf is measured once, without tar.")
	for _, delay := range delays {
		at := atDelay(delay)
		g.target("cold read of all by one tar, "+at+", to oras copy and tar",
			g.median(lazily, at)/g.median(orasThen, at), 1, report.Times)
	}
	far := atDelay(delays[len(delays)-1])
	g.target("cold read of all by one tar, "+far+", to oras copy alone",
		g.median(lazily, far)/g.median(orasOnly, far), 1.1, report.Times)
	g.target("cold read of all by one tar, "+far+", to plain GETs on 32 connections",
		g.median(lazily, far)/g.median(ideal, far), 1.5, report.Times)
	g.targetLeast("cold read of all by one tar, "+far+", times faster than the reference pull",
		g.median(pfPull, far)/g.median(lazily, far), 40, report.Times)
	return []*gathered{g}, nil
}

// atDelay is the column of a delay, as the plots read it.
func atDelay(d time.Duration) string { return fmt.Sprintf("%d ms a request", d.Milliseconds()) }

// distantly goes all ways at one delay.
func (c *carrier) distantly(ctx context.Context, g *gathered, delay time.Duration) error {
	at := atDelay(delay)
	ways := []struct {
		name string
		do   func(context.Context) (time.Duration, error)
	}{
		{lazily, func(ctx context.Context) (time.Duration, error) { return c.tarOfMount(ctx, false) }},
		{warmed, func(ctx context.Context) (time.Duration, error) { return c.tarOfMount(ctx, true) }},
		{orasThen, func(ctx context.Context) (time.Duration, error) {
			copied, tarred, err := c.orasCopy(ctx)
			if err != nil {
				g.fail(orasOnly, at, err)
				return 0, err
			}
			g.took(orasOnly, at, copied)
			return copied + tarred, nil
		}},
		{ideal, func(ctx context.Context) (time.Duration, error) {
			start := time.Now()
			err := download(ctx, c.srv.URL()+"/v2/carry/source", smallLayers(c.img), 32)
			return time.Since(start), err
		}},
	}
	for run := range c.opts.turns() {
		for _, way := range inTurn(run, ways) {
			took, err := way.do(ctx)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				g.fail(way.name, at, err)
				continue
			}
			g.took(way.name, at, took)
		}
	}
	if delay != delays[len(delays)-1] && !c.opts.full {
		g.fail(pfPull, at, errAbsent("left out without -full"))
		return nil
	}
	took, err := c.pfPull(ctx)
	if err != nil {
		g.fail(pfPull, at, err)
		return ctx.Err()
	}
	g.took(pfPull, at, took)
	return nil
}

// tarOfMount mounts with an empty cache and reads everything by one tar; warm fetches it all before.
func (c *carrier) tarOfMount(ctx context.Context, warm bool) (_ time.Duration, err error) {
	c.n++
	ref, cache := c.srv.Ref("carry/source", "v1"), c.path(fmt.Sprintf("cache-far-%d", c.n))
	start := time.Now()
	if warm {
		if _, err := c.run(ctx, "", c.binary, "warm", "--cache-dir", cache, ref); err != nil {
			return 0, err
		}
	}
	fetched := time.Since(start)
	m, err := c.mountImage(ctx, ref, cache, "/world/fs")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.close(context.WithoutCancel(ctx))) }()
	start = time.Now()
	_, err = c.run(ctx, m.root, "sh", "-c", "tar -cf - . | cat >/dev/null")
	return fetched + m.took + time.Since(start), err
}

// orasCopy copies the session to a layout, and reads that by one tar.
func (c *carrier) orasCopy(ctx context.Context) (copied, tarred time.Duration, err error) {
	t := c.tools[1]
	if t.absent != "" {
		return 0, 0, errAbsent(t.absent)
	}
	c.n++
	j := journey{carrier: c, dir: c.path(fmt.Sprintf("carried-%d", c.n))}
	u, err := c.measure(ctx, t.pull(j), nil)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	_, err = c.run(ctx, j.dir, "sh", "-c", "tar -cf - . | cat >/dev/null")
	return u.wall, time.Since(start), err
}

func (c *carrier) pfPull(ctx context.Context) (time.Duration, error) {
	t := c.tools[2]
	if t.absent != "" {
		return 0, errAbsent(t.absent)
	}
	c.n++
	j := journey{carrier: c, dir: c.path(fmt.Sprintf("carried-%d", c.n))}
	u, err := c.measure(ctx, t.pull(j), t.env(j, "pull"))
	return u.wall, err
}
