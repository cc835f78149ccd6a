package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pfmount/pfmount/test/bench/report"
	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// rounds is the number of requests that one waiting for the other would need: the longest chain in which
// each begins when the one before has ended. An answer reaches the client a moment before its handler
// ends; slack is that moment.
func rounds(log []faultreg.Exchange, slack time.Duration) int {
	slices.SortFunc(log, func(a, b faultreg.Exchange) int { return a.End.Compare(b.End) })
	n, end := 0, time.Time{}
	for _, x := range log {
		if n == 0 || !x.Start.Before(end.Add(-slack)) {
			n, end = n+1, x.End
		}
	}
	return n
}

// countDelay makes requests long enough to tell those that were sent together from those that wait
// for others, also on a busy machine.
const countDelay = 250 * time.Millisecond

// first is what it took to mount and read one small file.
type first struct {
	mount, all time.Duration
	log        []faultreg.Exchange
}

// firstWays are the ways to a first file, in the order in which they leave the cache for the next.
var firstWays = []struct {
	name  string
	fresh bool
	file  string
}{
	{"cold", true, "src/d0000/f0000.txt"},
	{"second mount, same file", false, "src/d0000/f0000.txt"},
	{"second mount, another file", false, "src/d0000/f0001.txt"},
}

// firstFile measures what it takes to read one small file: from nothing, and when mounted a second time.
func (s *session) firstFile(ctx context.Context) ([]*gathered, error) {
	g := gather("To the first file: mount, and cat of one small file", report.NoBase)
	counted, err := s.firstAt(ctx, countDelay)
	if err != nil {
		return nil, err
	}
	for i, way := range firstWays {
		total := int64(0)
		for _, x := range counted[i].log {
			total += x.Bytes
		}
		g.add(way.name, "round trips", report.Count, float64(rounds(counted[i].log, countDelay/4)))
		g.add(way.name, "requests", report.Count, float64(len(counted[i].log)))
		g.add(way.name, "fetched", report.Bytes, float64(total))
	}
	for _, delay := range delays {
		for range s.opts.turns() {
			got, err := s.firstAt(ctx, delay)
			if err != nil {
				return nil, err
			}
			for i, way := range firstWays {
				g.took(way.name, fmt.Sprintf("mount, %d ms a request", delay.Milliseconds()), got[i].mount)
				g.took(way.name, fmt.Sprintf("mount and cat, %d ms", delay.Milliseconds()), got[i].all)
			}
		}
	}
	g.target("round trips to the first byte, cold, without a login",
		g.median("cold", "round trips"), 3, report.Count)
	return []*gathered{g}, nil
}

// firstAt goes all of firstWays with requests that take delay longer.
func (s *session) firstAt(ctx context.Context, delay time.Duration) ([]first, error) {
	rule := s.srv.On(faultreg.Match{}, faultreg.Delay(delay))
	defer rule.Off()
	var list []first
	for _, way := range firstWays {
		f, err := s.firstWay(ctx, s.pfmount(way.name,
			mountOptions{cache: "cache-first", fresh: way.fresh}), way.file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.name, err)
		}
		list = append(list, f)
	}
	return list, nil
}

func (s *session) firstWay(ctx context.Context, c column, file string) (f first, err error) {
	m, err := c.open(ctx)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, m.close(ctx)) }()
	start := time.Now()
	if _, err := s.run(ctx, m.root, "cat", file); err != nil {
		return f, err
	}
	f = first{mount: m.took, all: m.took + time.Since(start), log: s.srv.Log()}
	// What is still being fetched ahead does not count.
	f.log = slices.DeleteFunc(f.log, func(x faultreg.Exchange) bool { return x.End.IsZero() })
	return f, nil
}

// smallLayers are those of an image that hold small blobs.
func smallLayers(img *imgbuild.Image) (layers []imgbuild.Layer) {
	for _, l := range img.Layers {
		if l.MediaType == imgbuild.LayerType && l.Size < 64<<10 {
			layers = append(layers, l)
		}
	}
	return layers
}

// download is what the registry itself gives: layers by plain GETs that check and keep nothing, n
// at once. No reader of these files can be faster.
func download(ctx context.Context, repo string, layers []imgbuild.Layer, conns int) error {
	transport := &http.Transport{MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	errs := make([]error, conns)
	var wg sync.WaitGroup
	for c := range conns {
		wg.Go(func() {
			for i := c; i < len(layers) && errs[c] == nil; i += conns {
				errs[c] = get(ctx, client, repo+"/blobs/"+layers[i].Digest)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
