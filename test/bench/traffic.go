package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

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

// countDelay makes requests long enough to tell those that were sent together from those that wait for others,
// also on a busy machine.
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
	work  work
}{
	{"cold", true, work{"one", "cat src/d0000/f0000.txt >/dev/null"}},
	{"second mount, same file", false, work{"one", "cat src/d0000/f0000.txt >/dev/null"}},
	{"second mount, another file", false, work{"other", "cat src/d0000/f0001.txt >/dev/null"}},
}

// firstFile measures what it takes to read one small file: from nothing, and when mounted a second time.
func (s *session) firstFile(ctx context.Context, out io.Writer) error {
	counted, err := s.firstAt(ctx, countDelay)
	if err != nil {
		return err
	}
	s.results = results{}
	for _, delay := range []time.Duration{0, s.opts.delay} {
		for range s.opts.runs {
			got, err := s.firstAt(ctx, delay)
			if err != nil {
				return err
			}
			for i, way := range firstWays {
				s.results.add(way.name, fmt.Sprint(mountWork, delay), got[i].mount)
				s.results.add(way.name, fmt.Sprint(delay), got[i].all)
			}
		}
	}
	near, far := fmt.Sprint(time.Duration(0)), fmt.Sprint(s.opts.delay)
	lines := []string{"To the first file\tround trips\trequests\tbytes\tmount\tmount and cat\tmount, " + far + " a request\tmount and cat, " + far}
	for i, way := range firstWays {
		log, total := counted[i].log, int64(0)
		for _, x := range log {
			total += x.Bytes
		}
		line := []string{way.name, fmt.Sprint(rounds(log, countDelay/4)), fmt.Sprint(len(log)), size(total)}
		for _, column := range []string{mountWork + near, near, mountWork + far, far} {
			line = append(line, spread(s.results[cell{way.name, column}]))
		}
		lines = append(lines, strings.Join(line, "\t"))
	}
	fmt.Fprintln(out)
	table(out, lines)
	return nil
}

// firstAt goes all of firstWays with requests that take delay longer.
func (s *session) firstAt(ctx context.Context, delay time.Duration) ([]first, error) {
	rule := s.srv.On(faultreg.Match{}, faultreg.Delay(delay))
	defer rule.Off()
	var list []first
	for _, way := range firstWays {
		f, err := s.firstWay(ctx, s.pfmount(way.name, "cache-first", way.fresh), way.work)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", way.name, err)
		}
		list = append(list, f)
	}
	return list, nil
}

func (s *session) firstWay(ctx context.Context, c column, w work) (f first, err error) {
	m, err := c.open(ctx)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, m.close(ctx)) }()
	start := time.Now()
	if _, err := s.run(ctx, m.root, "sh", "-c", w.script); err != nil {
		return f, err
	}
	return first{m.took, m.took + time.Since(start), s.srv.Log()}, nil
}

// downloads notes what the registry itself gives: every layer of the small files by plain GETs that check
// and keep nothing, one after the other and 32 at once. No reader of these files can be faster.
func (s *session) downloads(ctx context.Context) error {
	var layers []imgbuild.Layer
	for _, l := range s.img.Layers {
		if l.MediaType == imgbuild.LayerType && l.Size < 64<<10 {
			layers = append(layers, l)
		}
	}
	line := fmt.Sprintf("For comparison: plain GETs of the %d small layers, unchecked and thrown away:", len(layers))
	for _, n := range []int{1, 32} {
		start := time.Now()
		if err := s.download(ctx, layers, n); err != nil {
			return err
		}
		line += fmt.Sprintf(" %s on %d connections;", span(time.Since(start)), n)
	}
	s.notes = append(s.notes, strings.TrimSuffix(line, ";"))
	return nil
}

func (s *session) download(ctx context.Context, layers []imgbuild.Layer, conns int) error {
	transport := &http.Transport{MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	errs := make([]error, conns)
	var wg sync.WaitGroup
	for c := range conns {
		wg.Go(func() {
			for i := c; i < len(layers) && errs[c] == nil; i += conns {
				errs[c] = get(ctx, client, s.srv.URL()+"/v2/bench/session/blobs/"+layers[i].Digest)
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
