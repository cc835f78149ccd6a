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

// The two ways of a large blob to a checked file.
const (
	byMount = "pfmount, first read"
	byPipe  = "curl, zstd -d, tee, sha256sum"
)

// fill measures one large blob from the registry to a file that was checked, beside the tools that
// do each step.
func (s *session) fill(ctx context.Context) ([]*gathered, error) {
	big := s.img.Layer(s.img.Digest("world/fs/big.bin"))
	g := gather(fmt.Sprintf("The fill path: one blob of %s (%s on the wire) from a registry on this machine to a checked file",
		report.Format(float64(s.opts.shape.big), report.Bytes), report.Format(float64(big.Size),
			report.Bytes)), report.FirstRow)
	g.note("The first byte of a file is served when all of its blob was verified, so `head -c 1` takes as long as the fill. CPU is that of the " +
		"daemon, or of all of the pipe, without the registry's.")
	pipe := fmt.Sprintf("curl -sS %s/v2/bench/session/blobs/%s | zstd -dcq | tee %%s | sha256sum >/dev/null", s.srv.URL(), big.Digest)
	ways := []string{byMount, byPipe}
	for run := range s.opts.turns() {
		for _, way := range inTurn(run, ways) {
			var u usage
			var err error
			if way == byMount {
				u, err = s.firstRead(ctx, "big.bin")
			} else if err = installed("curl", "zstd"); err == nil {
				file := s.path("filled")
				u, err = s.measureAll(ctx, fmt.Sprintf(pipe, file))
				os.Remove(file)
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				g.fail(way, "time", err)
				continue
			}
			g.took(way, "time", u.wall)
			g.took(way, "CPU", u.cpu)
		}
	}
	g.targetLeast("fill of a large blob, to the speed of curl | zstd -d | tee | sha256sum",
		g.median(byPipe, "time")/g.median(byMount, "time"), 0.8, report.Times)
	g.target("fill of a large blob, CPU to that of the pipe",
		g.median(byMount, "CPU")/g.median(byPipe, "CPU"), 1, report.Times)
	return []*gathered{g}, nil
}

// firstRead mounts with an empty cache and reads one byte of a file.
func (s *session) firstRead(ctx context.Context, file string) (u usage, err error) {
	m, err := s.pfmount("pfmount", mountOptions{cache: "cache-fill", fresh: true}).open(ctx)
	if err != nil {
		return u, err
	}
	before, start := cpuTime(m.pid), time.Now()
	_, err = s.run(ctx, m.root, "sh", "-c", "head -c 1 "+file+" >/dev/null")
	u.wall, u.cpu = time.Since(start), cpuTime(m.pid)-before
	err = errors.Join(err, m.close(context.WithoutCancel(ctx)))
	// A cache of few files, which deleting does not slow down what comes after.
	return u, errors.Join(err, os.RemoveAll(s.cache("cache-fill")))
}

// measureAll measures a shell's pipe: its CPU is that of all its parts.
func (s *session) measureAll(ctx context.Context, script string) (usage, error) {
	return s.measure(ctx, []string{"sh", "-c", script}, nil)
}

// oneFileSize is the decoded size of the file of oneFile.
func (o options) oneFileSize() int64 {
	if o.quick {
		return 50_000_000
	}
	return 2_500_000_000
}

// oneFile measures cp of one large cold file out of a mount, beside a pull of its image.
func (b *bench) oneFile(ctx context.Context, p *place) (_ []*gathered, err error) {
	const copied, pulled, again = "pfmount: mount, cp", "pfmount pull to a store", "cp of that copy, on the disk alone"
	img, err := imgbuild.Build(imgbuild.Spec{Dir: p.dir,
		Entries: []imgbuild.Entry{imgbuild.File("model.bin", "0644",
			prose{seed: 7, size: b.opts.oneFileSize()})}})
	if err != nil {
		return nil, err
	}
	srv, err := faultreg.New(faultreg.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	srv.Serve(img, "bench/one", "v1") // not pushed: that would keep the blob in memory
	ref := srv.Ref("bench/one", "v1")
	g := gather(fmt.Sprintf("One file of %s (%s on the wire): copied out of a cold mount, and pulled",
		report.Format(float64(b.opts.oneFileSize()),
			report.Bytes), report.Format(float64(img.Layer(img.Digest("world/fs/model.bin")).Size), report.Bytes)), report.FirstRow)
	ways := []string{copied, pulled}
	for run := range b.opts.turns() {
		for _, way := range inTurn(run, ways) {
			took, plain, err := p.copyOrPull(ctx, way == copied, ref, run)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				g.fail(way, "time", err)
				continue
			}
			g.took(way, "time", took)
			if way == copied {
				g.took(again, "time", plain)
			}
		}
	}
	g.note("cp writes the decoded file and the cache; the pull verifies it, writes what came over the wire, and ends when that is on the disk for certain.")
	g.target("cp of one large file, to pull of it",
		g.median(copied, "time")/g.median(pulled, "time"), 1.1, report.Times)
	return []*gathered{g}, nil
}

// copyOrPull does one of both and removes what it made: few files. plain is how long it takes to
// copy the copy.
func (p *place) copyOrPull(ctx context.Context, mounted bool, ref string, run int) (took,
	plain time.Duration, err error) {
	dir := fmt.Sprintf("one-%d-%v", run, mounted)
	if err := p.mkdir(dir); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.path(dir))) }()
	start := time.Now()
	if !mounted {
		_, err := p.run(ctx, "", p.binary, "pull", "-q", "--store", p.path(dir+"/store"), ref, "store:")
		return time.Since(start), 0, err
	}
	m, err := p.mountImage(ctx, ref, p.path(dir+"/cache"), "/world/fs")
	if err != nil {
		return 0, 0, err
	}
	_, err = p.run(ctx, m.root, "cp", "model.bin", p.path(dir+"/copy"))
	took = time.Since(start)
	if err = errors.Join(err, m.close(context.WithoutCancel(ctx))); err != nil {
		return 0, 0, err
	}
	start = time.Now()
	_, err = p.run(ctx, p.path(dir), "cp", "--reflink=never", "copy", "copy-2")
	return took, time.Since(start), err
}
