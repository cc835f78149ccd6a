package prefetch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/prefetch"
	"github.com/pfmount/pfmount/fetch/sched"
)

// TestWindow: files that are read in order cause fetches of those that come next, and nothing else
// does.
func TestWindow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		size   int
		change func(*mount, *prefetch.Config)
		lister uint32 // lists the directory before; 0: no listing
		reads  int
		want   int // files fetched, behind those that were read
	}{
		"one file":             {reads: 1},
		"two files":            {reads: 2},
		"three files":          {reads: 3, want: 8},
		"listed":               {lister: 1, reads: 2, want: 8},
		"listed, one file":     {lister: 1, reads: 1},
		"listed by another":    {lister: 2, reads: 2},
		"large files":          {reads: 10, size: 4<<20 + 1},
		"files up to 4 MiB":    {reads: 9, size: 1 << 10, want: 100},
		"a small cache":        {reads: 9, size: 1 << 10, want: 3, change: cacheSize(16 * 3 << 10)},
		"few connections":      {reads: 9, want: 2, change: connections(1)},
		"few fills":            {reads: 9, want: 1, change: fills(8)},
		"offline":              {reads: 9, change: offline},
		"not in the image":     {reads: 9, change: missing},
		"everything is cached": {reads: 9, change: func(m *mount, _ *prefetch.Config) { m.cacheAll() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMount(newImage(t, 110, tt.size), tt.change)
				defer m.Close()
				if tt.lister != 0 {
					m.Listing(m.image.dir(), tt.lister)
				}
				m.read(1, 0, tt.reads)
				want := m.image.blobs[tt.reads:]
				if got := m.cache.fetched(); tt.want == 100 { // the window grows as it is hit
					if n := len(got); n < 20 || n > 72 {
						t.Errorf("%d files are fetched ahead", n)
					}
				} else if tt.reads > 3 && tt.want > 0 {
					ahead := 0
					for _, d := range got {
						if slices.Contains(want, d) {
							ahead++
						}
					}
					if ahead != tt.want {
						t.Errorf("%d files are ahead, want %d", ahead, tt.want)
					}
				} else if !slices.Equal(sorted(got), sorted(want[:tt.want])) {
					t.Errorf("%d files are fetched, want the next %d", len(got), tt.want)
				}
				for _, c := range m.cache.classes {
					if c != sched.Ahead {
						t.Errorf("fetched as class %d, want %d", c, sched.Ahead)
					}
				}
			})
		})
	}
}

func cacheSize(n int64) func(*mount, *prefetch.Config) {
	return func(_ *mount, c *prefetch.Config) { c.Limits.CacheSize = n }
}

func connections(n int) func(*mount, *prefetch.Config) {
	return func(_ *mount, c *prefetch.Config) { c.Limits.Connections = n }
}

func fills(n int) func(*mount, *prefetch.Config) {
	return func(_ *mount, c *prefetch.Config) { c.Limits.Fills = n }
}

func offline(_ *mount, c *prefetch.Config) { c.Online = false }

func missing(m *mount, _ *prefetch.Config) {
	for _, d := range m.image.blobs {
		m.image.missing[d] = true
	}
}

// TestOneFetch: a blob that two readers are expected to come to is fetched once at a time. After a
// failure it is fetched again.
func TestOneFetch(t *testing.T) {
	t.Parallel()
	for fails, want := range map[bool]int{false: 1, true: 2} {
		synctest.Test(t, func(t *testing.T) {
			image, records := newImage(t, 40, 0), &fakeRecords{texts: map[string][]byte{}}
			readOrder(image, records, 20, 21, 3, 4, 5)
			m := newMount(image, func(m *mount, c *prefetch.Config) {
				c.Records = records
				m.cache.fetch = func(ctx context.Context, _ pfimg.Digest) error {
					if fails {
						return errors.New("no answer")
					}
					<-ctx.Done()
					return ctx.Err()
				}
			})
			defer m.Close()
			m.read(1, 0, 3)
			m.read(2, 20, 22)
			count := map[pfimg.Digest]int{}
			for _, d := range m.cache.fetched() {
				count[d]++
			}
			for _, d := range image.pick(3, 4, 5) {
				if count[d] != want {
					t.Errorf("fails: %v: fetched %d times, want %d", fails, count[d], want)
				}
			}
		})
	}
}

// TestRaise: the fetch of a blob becomes a reader's when a reader waits for the blob, and only that
// one.
func TestRaise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		m := newMount(newImage(t, 20, 0), func(m *mount, _ *prefetch.Config) {
			m.cache.fetch = func(context.Context, pfimg.Digest) error { <-finish; return nil }
		})
		defer m.Close()
		m.read(1, 0, 3)
		defer m.inflight.Await(m.image.blobs[5])()
		defer m.inflight.Await(m.image.blobs[19])() // is not fetched
		if n := m.inflight.Waits(); n != 2 {
			t.Errorf("%d waits, want 2", n)
		}
		close(finish)
		synctest.Wait()
		count := map[sched.Class]int{}
		for _, c := range m.cache.classes {
			count[c]++
		}
		if count[sched.Reader] != 1 || count[sched.Ahead] != 7 {
			t.Errorf("classes of fetches: %v", count)
		}
	})
}

// TestSlots: the fetches ahead that are under way are bounded, however many readers there are.
func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMount(newImage(t, 1000, 0), func(m *mount, c *prefetch.Config) {
			c.Limits.Connections = 2
			m.cache.fetch = func(ctx context.Context, _ pfimg.Digest) error {
				<-ctx.Done()
				return ctx.Err()
			}
		})
		for reader := range 90 {
			m.read(uint32(reader+1), reader*10, reader*10+3)
		}
		if m.cache.most != 16 {
			t.Errorf("%d fetches at once, want 16", m.cache.most)
		}
		m.Close()
	})
}

// TestPush: cached files that come next are pushed with their content, but for those that are left
// to be read, so that the reader is seen.
func TestPush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMount(newImage(t, 200, 0), func(m *mount, c *prefetch.Config) {
			c.Online = false
			m.cacheAll()
		})
		defer m.Close()
		m.read(1, 0, 3)
		if n := len(m.kernel.stored()); n != 0 {
			t.Errorf("%d files are pushed before there is a mount", n)
		}
		m.PushTo(m.kernel)
		synctest.Wait()
		for i := 3; i < len(m.image.rows); i++ {
			if _, ok := m.kernel.stored()[m.image.rows[i]]; !ok {
				m.read(1, i, i+1)
			}
		}
		pages := m.kernel.stored()
		if len(pages) < 100 || len(pages) > 190 {
			t.Errorf("%d of 200 files are pushed", len(pages))
		}
		for i, r := range m.image.rows {
			data, ok := pages[r]
			if want := string(m.image.content[m.image.blobs[i]]); ok && data != want {
				t.Errorf("file %d is pushed as %q, want %q", i, data, want)
			}
		}
		if s := m.Stats(); s.Pushed != int64(len(pages)) || s.Hits != 0 {
			t.Errorf("stats %+v, %d files are pushed", s, len(pages))
		}
	})
}

// TestPushFetched: a reader that has read many files in order finds fetched files pushed.
func TestPushFetched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMount(newImage(t, 300, 0), nil)
		defer m.Close()
		m.PushTo(m.kernel)
		m.read(1, 0, 60)
		if n := len(m.kernel.stored()); n != 0 {
			t.Errorf("%d files are pushed to a reader that may stop", n)
		}
		for i := 60; i < len(m.image.rows); i++ {
			if _, ok := m.kernel.stored()[m.image.rows[i]]; !ok {
				m.read(1, i, i+1)
			}
		}
		if n := len(m.kernel.stored()); n < 100 {
			t.Errorf("%d of 240 files are pushed", n)
		}
		if s := m.Stats(); s.Hits < 250 || s.Wasted != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestDeferred: a file that the kernel has not looked up is pushed when its directory was listed.
// The number of those that wait is bounded.
func TestDeferred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMount(newImage(t, 40, 0), func(m *mount, _ *prefetch.Config) {
			m.cacheAll()
			m.kernel.known = map[pfimg.Row]bool{}
		})
		defer m.Close()
		m.PushTo(m.kernel)
		m.read(1, 0, 3)
		if n := len(m.kernel.stored()); n != 0 {
			t.Errorf("%d files are pushed that the kernel does not know", n)
		}
		for _, r := range m.image.rows {
			m.kernel.known[r] = true
		}
		m.Listed(pfimg.Root) // another directory
		synctest.Wait()
		if n := len(m.kernel.stored()); n != 0 {
			t.Errorf("%d files are pushed by the listing of another directory", n)
		}
		m.Listed(m.image.dir())
		synctest.Wait()
		n := len(m.kernel.stored())
		if n == 0 {
			t.Error("no file is pushed when its directory is listed")
		}
		m.Listed(m.image.dir())
		synctest.Wait()
		if again := len(m.kernel.stored()); again != n {
			t.Errorf("%d files after a second listing, %d after the first", again, n)
		}
	})
}

// TestClose: Stop and Close end what is under way; Close waits for it, and nothing starts after it.
func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		m := newMount(newImage(t, 60, 0), func(m *mount, c *prefetch.Config) {
			c.Records, c.Whole = &fakeRecords{texts: map[string][]byte{}}, true
			m.cache.fetch = func(ctx context.Context, _ pfimg.Digest) error {
				<-ctx.Done()
				<-leave // takes a while
				return ctx.Err()
			}
		})
		m.PushTo(m.kernel)
		m.read(1, 0, 3)
		m.Stop()
		closed := make(chan struct{})
		go func() { m.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close does not wait for fetches")
		default:
		}
		close(leave)
		<-closed
		if m.cache.current != 0 {
			t.Errorf("%d fetches are left behind", m.cache.current)
		}
		before := len(m.cache.fetched())
		m.read(2, 20, 40)
		m.PushTo(m.kernel)
		m.Listed(m.image.dir())
		if n := len(m.cache.fetched()); n != before {
			t.Errorf("%d fetches began after Close", n-before)
		}
		if strings.Contains(m.log.String(), "level=") {
			t.Errorf("the end is logged: %s", m.log)
		}
	})
}

// TestNil: where nothing is prefetched, a nil Prefetcher can be asked and closed.
func TestNil(t *testing.T) {
	t.Parallel()
	var p *prefetch.Prefetcher
	p.PushTo(&fakeKernel{})
	p.Stop()
	p.Close()
	if s := p.Stats(); s != (prefetch.Stats{}) {
		t.Errorf("stats %+v", s)
	}
}

// TestWhole: the whole image is fetched, as the background, but for what is cached or not in the
// image. It gives up when the cache is full and when the link fails, and not for a bad blob.
func TestWhole(t *testing.T) {
	t.Parallel()
	const files, topLevel = 50, 8
	for name, tt := range map[string]struct {
		change   func(*mount, *prefetch.Config)
		min, max int // blobs for which a fetch began
		gaveUp   string
	}{
		"all":     {min: files + topLevel, max: files + topLevel},
		"offline": {change: offline},
		"cached": {min: files + topLevel - 1, max: files + topLevel - 1,
			change: func(m *mount, _ *prefetch.Config) { m.cache.cached[m.image.blobs[7]] = true }},
		"missing": {min: topLevel, max: topLevel, change: missing},
		"full cache": {gaveUp: "no room", max: 8,
			change: func(m *mount, c *prefetch.Config) { m.cache.room = c.Limits.CacheSize / 16 }},
		"failing link": {gaveUp: "no route", min: 3, max: 3 + 8,
			change: func(m *mount, _ *prefetch.Config) {
				m.cache.fetch = func(context.Context, pfimg.Digest) error {
					return errors.New("no route")
				}
			}},
		"bad blobs": {min: files + topLevel, max: files + topLevel,
			change: func(m *mount, _ *prefetch.Config) {
				m.cache.fetch = func(context.Context, pfimg.Digest) error { return errBlob }
			}},
		"now and then a failure": {min: files + topLevel, max: files + topLevel,
			change: func(m *mount, c *prefetch.Config) {
				c.Limits.Fills = 4 // one at a time
				calls := 0
				m.cache.fetch = func(context.Context, pfimg.Digest) error {
					if calls++; calls%3 == 0 {
						return nil
					}
					return errors.New("no route")
				}
			}},
		"gave way": {min: 2 * (files + topLevel), max: 2 * (files + topLevel),
			change: func(m *mount, c *prefetch.Config) {
				c.Limits.Fills = 4
				calls := 0
				m.cache.fetch = func(context.Context, pfimg.Digest) error {
					if calls++; calls%2 == 1 {
						return fmt.Errorf("later: %w", sched.ErrGaveWay)
					}
					return nil
				}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMount(newImage(t, files, 0), func(m *mount, c *prefetch.Config) {
					c.Whole = true
					if tt.change != nil {
						tt.change(m, c)
					}
				})
				defer m.Close()
				synctest.Wait()
				if n := len(m.cache.fetched()); n < tt.min || n > tt.max {
					t.Errorf("%d fetches, want %d to %d", n, tt.min, tt.max)
				}
				if m.cache.most > 8 {
					t.Errorf("%d fetches at once", m.cache.most)
				}
				for _, c := range m.cache.classes {
					if c != sched.Background {
						t.Errorf("fetched as class %d, want %d", c, sched.Background)
					}
				}
				said := m.log.String()
				if strings.Contains(said, "the rest of the image") != (tt.gaveUp != "") ||
					!strings.Contains(said, tt.gaveUp) {
					t.Errorf("logged %q, want %q", said, tt.gaveUp)
				}
			})
		})
	}
}

// TestWholeWaits: the background fetches nothing while readers are served, and leaves room for what
// it fetches at once.
func TestWholeWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		image := newImage(t, 20, size)
		busy := make(chan struct{})
		image.idle = func(ctx context.Context) error {
			select {
			case <-busy:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		m := newMount(image, func(m *mount, c *prefetch.Config) {
			c.Whole, c.Limits.CacheSize = true, 16*size
			m.cache.room = 100 * size
		})
		time.Sleep(time.Minute)
		if n := len(m.cache.fetched()); n != 0 {
			t.Errorf("%d fetches while readers are served", n)
		}
		close(busy)
		synctest.Wait()
		if n := len(m.cache.fetched()); n != 28 {
			t.Errorf("%d blobs are fetched, want 28", n)
		}
		m.Close()
	})
}

// TestWholeBesideAhead: the background does not fetch again what is being fetched ahead.
func TestWholeBesideAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		image, busy := newImage(t, 20, 0), make(chan struct{})
		image.idle = func(context.Context) error { <-busy; return nil }
		ahead := image.pick(3, 4, 5, 6, 7, 8, 9, 10)
		m := newMount(image, func(m *mount, c *prefetch.Config) {
			c.Whole = true
			m.cache.fetch = func(ctx context.Context, d pfimg.Digest) error {
				if slices.Contains(ahead, d) {
					<-ctx.Done()
				}
				return ctx.Err()
			}
		})
		defer m.Close()
		m.read(1, 0, 3)
		close(busy)
		synctest.Wait()
		all := sorted(m.cache.fetched())
		if n := len(slices.Compact(slices.Clone(all))); n != 28 || len(all) != n {
			t.Errorf("%d fetches of %d blobs, want 28 of 28", len(all), n)
		}
	})
}
