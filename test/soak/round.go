package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
)

// readersAtOnce is the number of reader processes; the machine of CI has two cores.
const readersAtOnce = 4

// round goes through a plan with readers and commands beside it, and then looks whether all is well again.
func (s *stage) round(ctx context.Context, seed uint64, n int) {
	p := newPlan(seed, n)
	busy, stop := context.WithCancel(ctx)
	c := crowd{s: s, seed: seed + uint64(n)<<32}
	var crowd, lanes sync.WaitGroup
	for i := range readersAtOnce {
		crowd.Go(func() { c.read(busy, i) })
	}
	crowd.Go(func() { s.commands(busy, c.seed) })
	crowd.Go(func() { s.watch(busy) })
	lanes.Go(func() { s.lane(ctx, p.wire) })
	lanes.Go(func() { s.lane(ctx, p.local) })
	lanes.Wait()
	stop()
	crowd.Wait()
	if ctx.Err() == nil {
		s.recover(ctx)
	}
	s.letGo()
	s.registry.Reset()
}

// letGo ends the stalls of the round.
func (s *stage) letGo() {
	waiting := 0
	for _, h := range s.holds {
		waiting += h.Waiting()
		h.Release()
	}
	s.counts.peak("stalled requests still connected at a round's end", int64(waiting))
	s.holds = nil
}

// lane takes one step after the other. A fault that met nothing gets a second try at the end.
func (s *stage) lane(ctx context.Context, steps []step) {
	planned := len(steps)
	for i := 0; i < len(steps) && ctx.Err() == nil; i++ {
		st := steps[i]
		s.journal.note("begin %s", st.fault.Name())
		acted, err := st.fault.Strike(ctx, s, st)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.fail("%s: %v", st.fault.Name(), err)
			return
		case acted:
			s.counts.add(met+st.fault.Name(), 1)
			s.journal.note("end   %s", st.fault.Name())
		default:
			s.journal.note("end   %s: it met nothing", st.fault.Name())
			if i < 2*planned {
				steps = append(steps, st)
			}
		}
		sleep(ctx, st.rest)
	}
}

// recover reads every file of every mount, with no fault on; all must be right. Then it audits.
func (s *stage) recover(ctx context.Context) {
	s.journal.note("recovery")
	sleep(ctx, grace)
	var wg sync.WaitGroup
	for _, m := range s.mounts {
		wg.Go(func() {
			p, err := startReader()
			if err != nil {
				s.fail("start a reader: %v", err)
				return
			}
			rng := rand.New(rand.NewPCG(1, 1))
			for _, path := range m.picture.files {
				if ctx.Err() != nil {
					break
				}
				if !s.job(p, m, "whole", path, rng) {
					return
				}
			}
			p.end(nil)
		})
	}
	wg.Wait()
	s.letGo()
	if ctx.Err() != nil {
		return
	}
	s.counts.add(recoveries, 1)
	problems := s.rest(ctx)
	for _, c := range s.caches { // evicted and counted anew since then
		c.extra.Store(0)
	}
	for _, c := range s.caches {
		blobs, bad := c.audit()
		s.counts.add("cached blobs audited", int64(blobs))
		problems = append(problems, bad...)
		if err := c.clean(); err != nil {
			problems = append(problems, err.Error())
		}
	}
	for _, text := range problems {
		s.fail("at rest: %s", text)
	}
	s.journal.note("at rest: %d problems", len(problems))
}

// unmet names the kinds of faults, readers and commands that never acted.
func (s *stage) unmet() (names []string) {
	want := []string{}
	for _, f := range append(wireFaults(), localFaults()...) {
		want = append(want, met+f.Name())
	}
	for _, k := range kinds {
		want = append(want, "reader "+k)
	}
	for _, name := range []string{"cat", "ls", "warm", "verify", "cache", "status"} {
		want = append(want, "command "+name)
	}
	for _, name := range want {
		if s.counts.get(name) == 0 {
			names = append(names, fmt.Sprintf("%q", name))
		}
	}
	return names
}
