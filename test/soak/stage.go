package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// stage is what faults and readers work on.
type stage struct {
	t        testing.TB
	env      *harness.Env
	registry *faultreg.Server // behind the proxy
	mirror   *faultreg.Server // the same blobs at another port: where redirects lead
	proxy    *toxiproxy.Proxy
	caches   []*store
	mounts   []*mount
	spare    *picture // what the moved tag is moved to
	moving   string   // where it is mounted
	ledger   *ledger
	journal  *journal
	counts   *counts
	graves   []*os.File       // used by the local lane alone
	holds    []*faultreg.Hold // of this round; used by the wire lane, and when that has ended

	mu       sync.Mutex // guards failures
	failures []string
	cancel   context.CancelFunc
}

// store is a cache folder that mounts and commands share.
type store struct {
	name    string
	dir     string
	size    int64
	options []string

	extra atomic.Int64 // bytes that faults added to files since the cache was last at rest
}

// newStage starts registry and proxy, builds the images and mounts them.
func newStage(t testing.TB, env *harness.Env, seed uint64, j *journal) *stage {
	s := &stage{t: t, env: env, registry: env.Registry(), ledger: &ledger{}, journal: j, counts: newCounts()}
	env.Crash() // daemons are killed; audit looks for what is left more closely than the Env would
	var err error
	if s.mirror, err = faultreg.New(faultreg.Options{Backend: s.registry.Backend()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.mirror.Close() })
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics have loggers of their own
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	s.proxy = toxiproxy.NewProxy(api, "registry", "127.0.0.1:0", s.registry.Host())
	if err := s.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.proxy.Stop)
	first, fork := newPicture(s, "first", seed, 1), newPicture(s, "fork", seed, 2)
	s.spare = newPicture(s, "spare", seed, 3)
	shared := newStore("shared", env.Path("cache/pfmount"), 24<<20)
	small := newStore("small", env.Tmpfs("disk", 26<<20)+"/cache", 22<<20)
	s.caches, s.moving = []*store{shared, small}, env.MountDir()
	for _, m := range []*mount{
		{name: "steady", picture: first, store: shared}, // never ends, so that what leaks adds up
		{name: "twin", picture: first, store: shared},
		{name: "fork", picture: fork, store: shared},
		{name: "tight", picture: first, store: small},
	} {
		m.ref, m.dir = s.ref(m.picture.tag), env.MountDir()
		s.mounts = append(s.mounts, m)
		if err := s.mount(m); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func newStore(name, dir string, size int64) *store {
	return &store{name: name, dir: dir, size: size, options: []string{
		"--cache-dir", dir, "--cache-size", fmt.Sprint(size), "--cache-min-free", "0",
		"--stall-timeout", stallTimeout.String(),
	}}
}

// flags are the options that the cache commands take, too.
func (c *store) flags() []string { return c.options[:6] }

// ref names an image of the registry behind the proxy.
func (s *stage) ref(tag string) string { return s.proxy.Listen + "/" + repository + ":" + tag }

// mount is one mount with its daemon.
type mount struct {
	name, ref, dir string
	picture        *picture
	store          *store
	goroutines     int // just after the first mount, as fds
	fds            int

	mu  sync.Mutex // guards pid
	pid int
}

func (m *mount) daemon() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pid
}

// where are the names under which a fault may excuse this mount's errors.
func (m *mount) where() []string { return []string{m.name, m.store.name} }

// mount mounts m, also over a stale mount, and finds its daemon.
func (s *stage) mount(m *mount) error {
	r := s.run(bound, append(slices.Clone(m.store.options), m.ref, m.dir)...)
	if r.Code != 0 {
		return fmt.Errorf("mount %s: %w", m.name, exitError(r))
	}
	state, err := s.status(m.dir)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pid = state.PID
	return nil
}

// status asks a daemon.
func (s *stage) status(dir string) (harness.Status, error) {
	r := s.run(bound, "status", "--json", dir)
	var all struct{ Mounts []harness.Status }
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil || len(all.Mounts) != 1 ||
		all.Mounts[0].PID == 0 {
		return harness.Status{}, fmt.Errorf("status of one mount: %v", r)
	}
	return all.Mounts[0], nil
}

// exitError is a command's failure.
type exitError harness.Result

func (e exitError) Error() string { return harness.Result(e).String() }

// exitCode is the code of a command that failed by itself.
func exitCode(err error) (code int, ok bool) {
	var e exitError
	ok = errors.As(err, &e)
	return e.Code, ok && e.Code > 0
}

// run runs the binary within limit; a command that hangs fails the run.
func (s *stage) run(limit time.Duration, args ...string) harness.Result {
	p := s.env.Start(args...)
	for end := time.Now().Add(limit); p.Running(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.Abort()
			s.fail("%q hangs: still running after %v\n%s", args, limit, p.Stderr())
		}
	}
	r := p.Wait(time.Second)
	r.Args = args
	return r
}

// logged counts the lines of all daemons' logs that hold every text.
func (s *stage) logged(texts ...string) int {
	n := 0
	for _, name := range s.logs() {
		data, _ := os.ReadFile(name)
		for line := range strings.SplitSeq(string(data), "\n") {
			if !slices.ContainsFunc(texts, func(t string) bool { return !strings.Contains(line, t) }) {
				n++
			}
		}
	}
	return n
}

func (s *stage) logs() []string {
	names, _ := filepath.Glob(s.env.Path("state/pfmount/*"))
	return names
}

// sleep waits, or less when the run ends; false then.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// until waits for ok for at most limit.
func until(ctx context.Context, limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) || !sleep(ctx, 20*time.Millisecond) {
			return ok()
		}
	}
	return true
}
