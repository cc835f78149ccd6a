package soak

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
)

// Errors that a network fault excuses: none; those of one that does not deliver; those of one that
// delivers something else, which a command calls an integrity error.
var (
	none    []string
	refused = []string{"EIO", "SIGBUS", "exit 5"}
	lied    = append([]string{"exit 4"}, refused...)
)

// wire is a fault of the registry: a rule for some of the requests.
type wire struct {
	name  string
	errs  []string // what it excuses
	match faultreg.Match
	fault func(rng *rand.Rand, s *stage) faultreg.Fault
}

// Name is the kind of fault.
func (f wire) Name() string { return f.name }

// actLimit is how long a fault waits for something to act on; there is always a reader that misses the cache.
const actLimit = 4 * time.Second

// Strike puts the rule in until it took a request and its time is over.
func (f wire) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	defer s.ledger.begin(f.name, "", f.errs...)()
	rule := s.registry.On(f.match, f.fault(st.rng, s))
	sleep(ctx, st.lasts)
	acted := until(ctx, actLimit, func() bool { return rule.Hits() > 0 })
	rule.Off()
	return acted, nil
}

// always is a fault that needs no choices and no end.
func always(f faultreg.Fault) func(*rand.Rand, *stage) faultreg.Fault {
	return func(*rand.Rand, *stage) faultreg.Fault { return f }
}

// chosen is a fault with choices and no end.
func chosen(f func(*rand.Rand) faultreg.Fault) func(*rand.Rand, *stage) faultreg.Fault {
	return func(rng *rand.Rand, _ *stage) faultreg.Fault { return f(rng) }
}

// held is a stall for good, as far as the round goes: its clients have to leave by themselves, and
// what they wanted must read right before the stalled requests are let go.
func held(f func(*rand.Rand, *faultreg.Hold) faultreg.Fault) func(*rand.Rand, *stage) faultreg.Fault {
	return func(rng *rand.Rand, s *stage) faultreg.Fault {
		h := faultreg.NewHold()
		s.holds = append(s.holds, h)
		return f(rng, h)
	}
}

// wireFaults are all faults between the daemons and the registry.
func wireFaults() []fault {
	anything := faultreg.Match{}
	blobs := faultreg.Match{Kind: faultreg.Blob, Method: http.MethodGet}
	list := []fault{
		wire{"stall before the first byte", refused, blobs,
			held(func(_ *rand.Rand, h *faultreg.Hold) faultreg.Fault { return h.Fault() })},
		wire{"stall inside a body", refused, blobs,
			held(func(rng *rand.Rand, h *faultreg.Hold) faultreg.Fault { return h.After(rng.Int64N(3000)) })},
		wire{"cut by FIN", refused, blobs,
			chosen(func(rng *rand.Rand) faultreg.Fault { return faultreg.Cut{Percent: 1 + 98*rng.Float64()}.Fault() })},
		wire{"cut by RST", refused, blobs,
			chosen(func(rng *rand.Rand) faultreg.Fault { return faultreg.Cut{After: rng.Int64N(9000), RST: true}.Fault() })},
		// Without a length a cut body is whole for the client; only the digest tells.
		wire{"truncated without a length", lied, blobs, chosen(func(rng *rand.Rand) faultreg.Fault {
			return faultreg.Cut{Percent: 1 + 98*rng.Float64(), Framing: faultreg.UntilClose}.Fault()
		})},
		wire{"wrong bytes", lied, blobs,
			chosen(func(rng *rand.Rand) faultreg.Fault { return faultreg.Flip(rng.Int64N(40)) })},
		wire{"bytes behind the end", lied, blobs,
			chosen(func(rng *rand.Rand) faultreg.Fault { return faultreg.Append([]byte("more"), rng.IntN(2) == 0) })},
		wire{"Content-Length too short", lied, blobs,
			chosen(func(rng *rand.Rand) faultreg.Fault { return faultreg.Length(1 + rng.Int64N(60)) })},
		wire{"Content-Length too long", lied, blobs,
			chosen(func(rng *rand.Rand) faultreg.Fault { return faultreg.Length(20<<20 + rng.Int64N(1000)) })},
		wire{"401", refused, anything,
			always(faultreg.Answer(401, `{"errors":[{"code":"UNAUTHORIZED"}]}`, "Www-Authenticate",
				`Basic realm="soak"`))},
		wire{"404", lied, blobs, always(faultreg.Answer(404, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`))},
		wire{"429", refused, anything, always(faultreg.Answer(429, "slow down", "Retry-After", "1"))},
		wire{"500", refused, anything, always(faultreg.Answer(500, "oops"))},
		wire{"503", refused, anything, always(faultreg.Answer(503, "try later"))},
		wire{"web page", lied, blobs,
			always(faultreg.Answer(200, "<html>log in</html>", "Content-Type", "text/html"))},
		wire{"dropped connections", refused, anything, always(faultreg.Drop())},
		// What follows is slow or odd, and no reason for an error.
		wire{"redirect", none, blobs, func(_ *rand.Rand, s *stage) faultreg.Fault {
			return faultreg.Redirect(s.mirror.URL(), "signature=secret")
		}},
		wire{"slow answers", none, blobs,
			chosen(func(rng *rand.Rand) faultreg.Fault { return faultreg.Delay(between(rng, stallTimeout/4)) })},
		wire{"slow bodies", none, blobs, always(faultreg.Trickle(64<<10, 5*time.Millisecond))},
		ignoredRange{},
		gone{},
	}
	return append(list, toxics()...)
}

// ignoredRange cuts each blob's body once, so that the client asks for the rest, and answers that
// with all of it.
type ignoredRange struct{}

// Name is the kind of fault.
func (ignoredRange) Name() string { return "ignored Range" }

// Strike acted when a ranged request was answered whole. One cut a blob is within what a client tries.
func (f ignoredRange) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	defer s.ledger.begin(f.Name(), "", none...)()
	ranged := func(x *faultreg.Exchange) bool { return x.Header.Get("Range") != "" }
	whole := s.registry.On(faultreg.Match{Kind: faultreg.Blob, Where: ranged}, faultreg.IgnoreRange())
	cut := s.registry.On(faultreg.Match{Kind: faultreg.Blob, Method: http.MethodGet},
		faultreg.Cut{Percent: 20 + 60*st.rng.Float64()}.Fault())
	sleep(ctx, st.lasts)
	acted := until(ctx, actLimit, func() bool { return whole.Hits() > 0 })
	cut.Off()
	sleep(ctx, 500*time.Millisecond) // for those that come back
	whole.Off()
	return acted, nil
}

// gone is a registry that is not there for a while.
type gone struct{}

// Name is the kind of fault.
func (gone) Name() string { return "registry gone" }

// Strike acted when a connection through the proxy was tried meanwhile, and so failed.
func (f gone) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	defer s.ledger.begin(f.Name(), "", refused...)()
	before := s.counts.get(cleanErrors)
	s.registry.Stop()
	sleep(ctx, st.lasts)
	acted := until(ctx, actLimit, func() bool { return s.counts.get(cleanErrors) > before })
	return acted, s.registry.Start()
}
