package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// carryDelay is what each request takes longer in the distant half of the section.
const carryDelay = 50 * time.Millisecond

// carryShape is the session that is carried: 1,500 files in folders, a tenth in a quick run.
func (o options) carryShape() (folders, files int) {
	if o.quick {
		return 15, 10
	}
	return 15, 100
}

// trip is what one push or pull took.
type trip struct {
	requests int
	usage
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
	trips  map[cell][]trip
}

// carry measures push and pull beside the reference tool and oras.
func (p *place) carry(ctx context.Context, o options, out io.Writer) (err error) {
	c := &carrier{place: p, opts: o, layout: p.path("carry-layout"), store: p.path("carry-store"), trips: map[cell][]trip{}}
	if c.tools, err = p.tools(ctx); err != nil {
		return err
	}
	folders, files := o.carryShape()
	c.img, err = imgbuild.Build(imgbuild.Spec{Dir: p.dir, Seq: imgbuild.Folders(folders, files, func(n int) imgbuild.Content {
		return prose{seed: uint64(n + 1), size: 1024 + int64(n)*2654435761%6144}
	})})
	if err != nil {
		return err
	}
	if err := errors.Join(c.img.WriteLayout(c.layout, "v1"), c.img.WriteStore(c.store)); err != nil {
		return err
	}
	if c.srv, err = faultreg.New(faultreg.Options{}); err != nil {
		return err
	}
	defer c.srv.Close()
	if err := c.srv.Push(ctx, c.img, "carry/source", "v1"); err != nil {
		return err
	}
	for _, delay := range []time.Duration{0, carryDelay} {
		if err := c.at(ctx, delay); err != nil {
			return err
		}
	}
	c.print(out, folders*files)
	return nil
}

// at goes through all tools with requests that take delay longer, in an order that turns round at each run.
func (c *carrier) at(ctx context.Context, delay time.Duration) error {
	if delay > 0 {
		rule := c.srv.On(faultreg.Match{}, faultreg.Delay(delay))
		defer rule.Off()
	}
	for run := range c.opts.runs {
		for i := range c.tools {
			t := c.tools[i]
			if run%2 == 1 {
				t = c.tools[len(c.tools)-1-i]
			}
			if t.absent != "" || t.slow && run > 0 {
				continue
			}
			for _, way := range []string{"push", "pull"} {
				if err := c.trip(ctx, t, way, delay); err != nil {
					return fmt.Errorf("%s %s: %w", t.name, way, err)
				}
			}
		}
	}
	return nil
}

// trip pushes to a new repository or pulls into a new place.
func (c *carrier) trip(ctx context.Context, t tool, way string, delay time.Duration) error {
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
	c.trips[cell{way, rowName(t.name, delay)}] = append(c.trips[cell{way, rowName(t.name, delay)}], trip{c.srv.Count(faultreg.Match{}), u})
	fmt.Fprintf(os.Stderr, "bench: carry: %s, %s: %s, %s of CPU\n", rowName(t.name, delay), way, span(u.wall), span(u.cpu))
	if way == "push" {
		if n := c.srv.Count(faultreg.Match{Kind: faultreg.Manifest, Method: "PUT", Repo: j.repo}); n == 0 {
			return errors.New("no manifest arrived")
		}
	}
	return os.RemoveAll(dir)
}

func rowName(tool string, delay time.Duration) string {
	if delay == 0 {
		return tool
	}
	return tool + ", " + delay.String() + " a request"
}

func (c *carrier) print(out io.Writer, files int) {
	layers := len(c.img.Layers)
	fmt.Fprintf(out, "\nCarried: a session of %d files, %d blobs, from a disk to a registry in this process (a new repository each time) and back.\n", files, layers+1)
	lines := []string{"\tpush\trequests\tCPU\tpeak\tpull\trequests\tCPU\tpeak"}
	for _, delay := range []time.Duration{0, carryDelay} {
		for _, t := range c.tools {
			row := rowName(t.name, delay)
			if t.absent != "" {
				lines = append(lines, row+"\t"+t.absent)
				continue
			}
			line := []string{row}
			for _, way := range []string{"push", "pull"} {
				line = append(line, trips(c.trips[cell{way, row}])...)
			}
			lines = append(lines, strings.Join(line, "\t"))
		}
	}
	table(out, lines)
	for _, t := range c.tools {
		fmt.Fprintf(out, "%s: %s\n", t.name, t.says)
	}
}

// trips are the cells of a row: median times, and the numbers of the run that had most.
func trips(list []trip) []string {
	var walls, cpus []time.Duration
	var requests int
	var peak int64
	for _, t := range list {
		walls, cpus = append(walls, t.wall), append(cpus, t.cpu)
		requests, peak = max(requests, t.requests), max(peak, t.peak)
	}
	return []string{spread(walls), fmt.Sprint(requests), span(median(cpus)), fmt.Sprintf("%d MB", peak/1e6)}
}
