package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// carryDelay is what each request takes longer in the distant half of the section.
const carryDelay = 50 * time.Millisecond

// carryShape is the session that is carried: 1,500 files in folders, a fifteenth in a quick run.
func (o options) carryShape() (folders, files int) {
	if o.quick {
		return 10, 10
	}
	return 15, 100
}

// carrier carries one session to and from one registry, by each tool in turn.
type carrier struct {
	*place
	opts   options
	srv    *faultreg.Server
	img    *imgbuild.Image
	layout string // where pfmount and oras push from
	store  string // where pf pushes from
	tools  []tool
	n      int // repositories and destinations so far
}

// newCarrier builds the session and puts it wherever it is carried from.
func newCarrier(ctx context.Context, p *place, o options) (_ *carrier, err error) {
	c := &carrier{place: p, opts: o, layout: p.path("carry-layout"), store: p.path("carry-store")}
	if c.tools, err = p.tools(ctx); err != nil {
		return nil, err
	}
	folders, files := o.carryShape()
	c.img, err = imgbuild.Build(imgbuild.Spec{Dir: p.dir,
		Seq: imgbuild.Folders(folders, files, func(n int) imgbuild.Content {
			return prose{seed: uint64(n + 1), size: 1024 + int64(n)*2654435761%6144}
		})})
	if err != nil {
		return nil, err
	}
	if c.srv, err = faultreg.New(faultreg.Options{}); err != nil {
		return nil, err
	}
	if err := c.srv.Push(ctx, c.img, "carry/source", "v1"); err != nil {
		return nil, errors.Join(err, c.srv.Close())
	}
	return c, nil
}

// carry measures push and pull beside the reference tool and oras.
func (b *bench) carry(ctx context.Context, p *place) (_ []*gathered, err error) {
	c, err := newCarrier(ctx, p, b.opts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.srv.Close()) }()
	if err := errors.Join(c.img.WriteLayout(c.layout, "v1"), c.img.WriteStore(c.store)); err != nil {
		return nil, err
	}
	folders, files := b.opts.carryShape()
	var tables []*gathered
	for _, delay := range []time.Duration{0, carryDelay} {
		g := gather(fmt.Sprintf("Carried: push and pull of a session of %d files, %d ms a request",
			folders*files, delay.Milliseconds()), report.FirstRow)
		for _, t := range c.tools {
			g.note("%s: %s.", t.name, t.says)
		}
		if err := c.at(ctx, g, delay); err != nil {
			return nil, err
		}
		tables = append(tables, g)
	}
	near := tables[0]
	near.note("From a disk to a registry in this process, a new repository each time, and back. A pull by pfmount ends when all of it is on the disk for certain.")
	near.targetLeast("push of many small files, times faster than the reference",
		near.median("pf", "push")/near.median("pfmount", "push"), 20, report.Times)
	return tables, nil
}

// at goes through all tools with requests that take delay longer.
func (c *carrier) at(ctx context.Context, g *gathered, delay time.Duration) error {
	if delay > 0 {
		rule := c.srv.On(faultreg.Match{}, faultreg.Delay(delay))
		defer rule.Off()
	}
	for _, t := range c.tools {
		g.cell(t.name, "push")
	}
	for run := range c.opts.turns() {
		for _, t := range inTurn(run, c.tools) {
			for _, way := range []string{"push", "pull"} {
				switch {
				case t.absent != "":
					g.fail(t.name, way, errAbsent(t.absent))
				case t.slow && run > 0:
				case t.slow && delay > 0 && !c.opts.full:
					g.fail(t.name, way, errAbsent("left out without -full"))
				default:
					if err := c.trip(ctx, g, t, way); err != nil {
						g.fail(t.name, way, err)
					}
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
			}
		}
	}
	return nil
}

// trip pushes to a new repository or pulls into a new place.
func (c *carrier) trip(ctx context.Context, g *gathered, t tool, way string) error {
	c.n++
	dir := c.path(fmt.Sprintf("carried-%d", c.n))
	j := journey{carrier: c, repo: fmt.Sprintf("carry/run-%d", c.n), dir: dir}
	argv, env := t.push(j), []string(nil)
	if way == "pull" {
		argv = t.pull(j)
	}
	if t.env != nil {
		env = t.env(j, way)
	}
	c.srv.Reset()
	u, err := c.measure(ctx, argv, env)
	if err != nil {
		return err
	}
	if way == "push" && c.srv.Count(faultreg.Match{Kind: faultreg.Manifest, Method: "PUT",
		Repo: j.repo}) == 0 {
		return errors.New("no manifest arrived")
	}
	g.took(t.name, way, u.wall)
	g.add(t.name, way+": requests", report.Count, float64(c.srv.Count(faultreg.Match{})))
	g.took(t.name, way+": CPU", u.cpu)
	g.add(t.name, way+": peak memory", report.Bytes, float64(u.peak))
	return os.RemoveAll(dir)
}
