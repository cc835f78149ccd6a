package soak

import (
	"context"
	"math/rand/v2"
	"time"
)

// fault is one kind of trouble.
type fault interface {
	Name() string
	// Strike makes the trouble for about as long as the step says, undoes it, and tells whether it
	// acted on anything. An error is a verdict against the product.
	Strike(ctx context.Context, s *stage, st step) (met bool, err error)
}

// step is a fault with its numbers.
type step struct {
	fault fault
	rng   *rand.Rand    // the fault's own choices
	lasts time.Duration // how long it is on, where it has a length
	rest  time.Duration // before the next step
}

// plan is what one round does.
type plan struct{ wire, local []step }

// breathers is the number of pauses in the wire lane in which nothing is wrong with the network for
// longer than the grace, so that errors then have no excuse.
const breathers = 2

// passes is how often the local lane goes through its kinds while the wire lane does once.
const passes = 2

// newPlan shuffles all kinds into a round; seed and round alone decide.
func newPlan(seed uint64, round int) plan {
	rng := rand.New(rand.NewPCG(seed, uint64(round)))
	p := plan{wire: steps(rng, wireFaults(), 500*time.Millisecond)}
	for range passes {
		p.local = append(p.local, steps(rng, localFaults(), time.Second)...)
	}
	for i := range breathers {
		p.wire[(i+1)*len(p.wire)/breathers-1].rest = grace + 2*time.Second
	}
	return p
}

func steps(rng *rand.Rand, faults []fault, rest time.Duration) []step {
	list := make([]step, len(faults))
	for i, at := range rng.Perm(len(faults)) {
		list[i] = step{
			fault: faults[at], rng: rand.New(rand.NewPCG(rng.Uint64(), 0)),
			lasts: 400*time.Millisecond + between(rng, 1200*time.Millisecond), rest: between(rng, rest),
		}
	}
	return list
}

// between is a time from 0 to most.
func between(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most)))
}
