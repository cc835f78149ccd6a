package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// forkCount is the number of images of a family; the first is the parent of the others.
const forkCount = 12

// forkShape is the number of files and the size of each, which does not compress.
func (o options) forkShape() (files int, size int64) {
	if o.quick {
		return 200, 64 << 10
	}
	return 1000, 64 << 10
}

// forks measures what each of a family of images adds that share 99 % of their files.
func (b *bench) forks(ctx context.Context, p *place) (_ []*gathered, err error) {
	files, size := b.opts.forkShape()
	srv, err := faultreg.New(faultreg.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	g := gather(fmt.Sprintf("Forks: %d images of %d files (%s each) that share 99 %%, mounted and read whole one after the other, with one cache",
		forkCount, files, report.Format(float64(size), report.Bytes)), report.FirstRow)
	cache := p.path("cache-forks")
	parents := []string(nil)
	for fork := range forkCount {
		img, err := imgbuild.Build(imgbuild.Spec{Dir: p.dir, Parents: parents,
			Seq: imgbuild.Folders(files/100, 100, func(n int) imgbuild.Content {
				seed := uint64(n + 1)
				if fork > 0 && n%100 == fork { // one in a hundred is the fork's own
					seed += uint64(fork) << 32
				}
				return imgbuild.Noise{Seed: seed, Len: size}
			})})
		if err != nil {
			return nil, err
		}
		parents = []string{"sha256:" + img.CID()}
		repo, row := fmt.Sprintf("bench/fork-%d", fork), fmt.Sprintf("image %d", fork+1)
		if err := srv.Push(ctx, img, repo, "v1"); err != nil {
			return nil, err
		}
		srv.Reset()
		if err := b.fork(ctx, p, g, row, srv.Ref(repo, "v1"), cache); err != nil {
			return nil, err
		}
		g.add(row, "requests", report.Count, float64(srv.Count(faultreg.Match{})))
		g.add(row, "fetched", report.Bytes, float64(srv.Sent()))
	}
	last := fmt.Sprintf("image %d", forkCount)
	g.note("A fork's own bytes are its manifest, which has 280 bytes for each blob and is not compressed, its tree, and one file in a hundred.")
	g.target("bytes fetched for the 12th fork, mounted and read whole, to the first",
		g.median(last, "fetched")/g.median("image 1", "fetched"), 0.02, report.Times)
	g.target("disk for the 12th fork, to the first",
		g.median(last, "disk")/g.median("image 1", "disk"), 0.02, report.Times)
	return []*gathered{g}, nil
}

// fork mounts and reads one image, and gives what that added to the cache.
func (b *bench) fork(ctx context.Context, p *place, g *gathered, row, ref, cache string) error {
	before := diskUse(ctx, cache)
	m, err := p.mountImage(ctx, ref, cache, "")
	if err != nil {
		return err
	}
	start := time.Now()
	_, err = p.run(ctx, m.root, "sh", "-c", "tar -cf - world/fs | cat >/dev/null")
	g.took(row, "mount", m.took)
	g.took(row, "tar of all", time.Since(start))
	if err := errors.Join(err, m.close(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	g.add(row, "disk", report.Bytes, float64(diskUse(ctx, cache)-before))
	return nil
}

// diskUse is what a folder takes on the disk; 0 when it is not there.
func diskUse(ctx context.Context, dir string) int64 {
	text, _ := exec.CommandContext(ctx, "du", "-s", "--block-size=1", dir).Output()
	first, _, _ := strings.Cut(string(text), "\t")
	n, _ := strconv.ParseInt(first, 10, 64)
	return n
}
