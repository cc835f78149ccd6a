package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// sized is an image whose cost is measured.
type sized struct {
	name    string // a column; the plots read the number of files of it
	entries int    // that memory is granted for
	spec    imgbuild.Spec
	largest string // its largest folder, below the mount
}

// mostBlobs is the number of different blobs of the largest images, whose manifest has to be read
// whole before a mount: at about 230,000 it would be longer than pfmount accepts.
const mostBlobs = 100_000

// sizes are the images, small ones first.
func (o options) sizes() []sized {
	counts, pages := []int{1_000, 10_000, 100_000, 1_000_000}, 77_238
	if o.quick {
		counts, pages = []int{1_000, 10_000}, 2_000
	}
	var list []sized
	for _, n := range counts {
		list = append(list, sized{
			name: fmt.Sprintf("%d files", n), entries: n, largest: "world/fs/large",
			spec: imgbuild.Spec{Seq: spread(n)},
		})
	}
	return append(list, sized{name: fmt.Sprintf("%d pages", pages), entries: pages,
		largest: "cache/pages", spec: paged(pages)})
}

// paged is an image of n pages whose size the page table tells, as a snapshot of a model's cache does.
func paged(n int) imgbuild.Spec {
	var s imgbuild.Spec
	var rows []string
	for i := range n / 2 {
		k, v := fmt.Sprintf("key %08d", i), fmt.Sprintf("val %08d", i)
		s.Pages = append(s.Pages, imgbuild.Page{K: imgbuild.Text(k), V: imgbuild.Text(v)})
		rows = append(rows, fmt.Sprintf(`{"ix":%d,"k":"sha256:%x","v":"sha256:%x"}`, i,
			sha256.Sum256([]byte(k)), sha256.Sum256([]byte(v))))
	}
	table := fmt.Sprintf(`{"layout":"paged-batchinvariant-v1","page_size_bytes":%d,"logical_seqs":[],"pages":[%s]}`, len("key 00000000"), strings.Join(rows, ","))
	s.Top = map[string][]byte{"cache.manifest": []byte(table)}
	return s
}

// spread yields n short files: a tenth in one folder, the others in folders of 100 each.
func spread(n int) iter.Seq[imgbuild.Entry] {
	body := imgbuild.Numbered(min(n, mostBlobs))
	return func(yield func(imgbuild.Entry) bool) {
		large := n / 10
		for e := range imgbuild.Folders((n-large)/100, 100, body) {
			if !yield(e) {
				return
			}
		}
		if !yield(imgbuild.Dir("large", "0755")) {
			return
		}
		for i := range large {
			if !yield(imgbuild.File(fmt.Sprintf("large/f%06d.txt", i), "0644", body(n-large+i))) {
				return
			}
		}
	}
}

// The lines of the table of sizes.
const (
	coldMount = "mount, cold"
	warmMount = "mount, cached metadata"
	listLarge = "ls of the largest folder"
	findAll   = "find"
	idleAfter = "memory, idle after the mount"
	idleFound = "memory, idle after find"
	peakOf    = "memory, peak"
)

// size measures how mounting, listing and memory grow with the number of names.
func (b *bench) size(ctx context.Context, p *place) ([]*gathered, error) {
	g := gather("Size: what more files cost", report.NoBase)
	for _, row := range []string{coldMount, warmMount, listLarge, findAll, idleAfter, idleFound, peakOf} {
		g.cell(row, b.opts.sizes()[0].name)
	}
	g.note("A tenth of the files is in one folder. The largest image has %d different blobs. Manifests above 4 MiB are served ready-made.", mostBlobs)
	for _, s := range b.opts.sizes() {
		if err := b.sized(ctx, p, g, s); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			g.fail(coldMount, s.name, err)
			continue
		}
		g.target("memory, idle, "+s.name, g.median(idleFound, s.name), memoryAim(s.entries), report.Bytes)
		if s.entries > 50_000 && s.entries != 100_000 {
			g.target("mount from cached metadata, "+s.name, g.median(warmMount, s.name), 3, report.Seconds)
		}
	}
	return []*gathered{g}, nil
}

// sized measures one image.
func (b *bench) sized(ctx context.Context, p *place, g *gathered, s sized) (err error) {
	s.spec.Dir = p.dir
	img, err := imgbuild.Build(s.spec)
	if err != nil {
		return err
	}
	srv, err := faultreg.New(faultreg.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	srv.Serve(img, "bench/size", "v1")
	ref := srv.Ref("bench/size", "v1")
	for run := range b.opts.turns() {
		cache := p.path(fmt.Sprintf("cache-size-%d-%d", s.entries, run))
		m, err := p.mountImage(ctx, ref, cache, "")
		if err != nil {
			return err
		}
		g.took(coldMount, s.name, m.took)
		if err := m.close(ctx); err != nil {
			return err
		}
		if m, err = p.mountImage(ctx, ref, cache, ""); err != nil {
			return err
		}
		g.took(warmMount, s.name, m.took)
		err = p.walked(ctx, g, m, s)
		if err := errors.Join(err, m.close(context.WithoutCancel(ctx))); err != nil {
			return err
		}
	}
	return nil
}

// walked lists all of a mount, and looks at the memory before and after.
func (p *place) walked(ctx context.Context, g *gathered, m *mount, s sized) error {
	g.add(idleAfter, s.name, report.Bytes, resident(m.pid))
	for _, w := range []work{{name: listLarge, script: "ls -l " + s.largest + " >/dev/null"},
		{name: findAll, script: "find . >/dev/null"}} {
		took, err := p.do(ctx, m, w)
		if err != nil {
			return err
		}
		g.took(w.name, s.name, took)
	}
	g.add(idleFound, s.name, report.Bytes, resident(m.pid))
	g.add(peakOf, s.name, report.Bytes, peak(m.pid))
	return nil
}

// growthBlobs is the number of files of all images of growth.
const growthBlobs = 100

// growth measures mounting as an image grows from 10 MB to 10 GB with the same number of blobs.
func (b *bench) growth(ctx context.Context, p *place) (_ []*gathered, err error) {
	sizes := []int64{10e6, 100e6, 1e9, 10e9}
	if b.opts.quick {
		sizes = []int64{1e6, 100e6}
	}
	srv, err := faultreg.New(faultreg.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	g := gather(fmt.Sprintf("Growth: mounting an image of %d files as they grow", growthBlobs),
		report.FirstColumn)
	type grown struct{ name, ref string }
	var images []grown
	for i, n := range sizes {
		repo := fmt.Sprintf("bench/growth-%d", i)
		img, err := imgbuild.Build(imgbuild.Spec{Dir: p.dir,
			Seq: imgbuild.Folders(10, growthBlobs/10, func(f int) imgbuild.Content {
				return imgbuild.Pattern{Seed: uint64(f), Len: n / growthBlobs}
			})})
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		srv.Serve(img, repo, "v1")
		images = append(images, grown{report.Format(float64(n), report.Bytes), srv.Ref(repo, "v1")})
	}
	const runs = 11 // a mount is short
	start := time.Now()
	for run := range runs {
		if run > 0 && time.Since(start) > b.opts.time {
			break
		}
		for i, image := range inTurn(run, images) {
			srv.Reset()
			m, err := p.mountImage(ctx, image.ref, p.path(fmt.Sprintf("cache-growth-%d-%d", i, run)), "")
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				g.fail("mount, cold", image.name, err)
				continue
			}
			g.took("mount, cold", image.name, m.took)
			if run == 0 {
				g.add("fetched to mount", image.name, report.Bytes, float64(srv.Sent()))
			}
			if err := m.close(ctx); err != nil {
				return nil, err
			}
		}
	}
	least, most := images[0].name, images[len(images)-1].name
	g.target("mounting "+most+", to "+least+" of as many blobs",
		g.median("mount, cold", most)/g.median("mount, cold", least), 1.2, report.Times)
	return []*gathered{g}, nil
}
