package soak

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/pfmount/pfmount/test/harness"
)

// command is a command that runs beside the mounts on their caches.
type command struct {
	args  []string
	check func(r harness.Result) string // what is wrong with a successful run; nil: nothing is looked at
}

// commands run one after the other until ctx ends.
func (s *stage) commands(ctx context.Context, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1000))
	for i := rng.IntN(6); ctx.Err() == nil && !s.failed(); i++ {
		m := s.mounts[rng.IntN(len(s.mounts))]
		c := s.command(i, m, rng)
		what := fmt.Sprintf("%s of %s on cache %s", strings.Join(c.args[:min(2, len(c.args))], " "),
			m.name, m.store.name)
		o := outcome{what: what, where: m.where(), start: time.Now()}
		r := s.run(bound, c.args...)
		o.end, o.detail = time.Now(), r.Stderr
		if r.Code != 0 {
			o.err = fmt.Sprint("exit ", r.Code)
		} else {
			s.counts.add("command "+c.args[0], 1)
			if c.check != nil {
				if text := c.check(r); text != "" {
					s.fail("%s: WRONG: %s", what, text)
				}
			}
		}
		s.judge(o)
		sleep(ctx, between(rng, 600*time.Millisecond))
	}
}

// command is the i-th of a cycle.
func (s *stage) command(i int, m *mount, rng *rand.Rand) command {
	with := func(args ...string) []string { return append(slices.Clone(args), m.store.options...) }
	path := m.pick(rng)
	switch i % 6 {
	case 0:
		return command{with("cat", m.ref, path), func(r harness.Result) string {
			want, err := os.ReadFile(m.picture.truth(path))
			if err != nil || !bytes.Equal(want, []byte(r.Stdout)) {
				return fmt.Sprintf("%s has %d bytes, want %d (%v)", path, len(r.Stdout), len(want), err)
			}
			return ""
		}}
	case 1:
		return command{with("ls", "-R", m.ref, "world/fs"), func(r harness.Result) string {
			for _, f := range m.picture.files {
				if strings.HasPrefix(f, "world/fs/") &&
					!strings.Contains(r.Stdout, strings.TrimPrefix(f, "world/fs/")) {
					return "no " + f
				}
			}
			return ""
		}}
	case 2:
		return command{with("warm", m.ref, "world/fs/src"), nil}
	case 3:
		return command{[]string{"verify", "--stall-timeout", stallTimeout.String(), m.ref}, nil}
	case 4:
		return command{append([]string{"cache", "info"}, m.store.flags()...), nil}
	}
	return command{[]string{"status", "--json"}, nil}
}
