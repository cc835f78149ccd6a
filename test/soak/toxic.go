package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
)

// toxic is a fault of the connections themselves, made by toxiproxy. It does not delay handshakes
// and has no wrong bytes: those are rules of the registry.
type toxic struct {
	kind  string
	errs  []string
	attrs func(rng *rand.Rand) map[string]int64
}

// Name is the kind of fault.
func (f toxic) Name() string { return "toxic " + f.kind }

// Strike acted when a request came through while it was on.
func (f toxic) Strike(ctx context.Context, s *stage, st step) (bool, error) {
	defer s.ledger.begin(f.Name(), "", f.errs...)()
	raw, err := json.Marshal(map[string]any{"name": f.kind, "type": f.kind, "stream": "downstream",
		"toxicity": 1, "attributes": f.attrs(st.rng)})
	if err != nil {
		return false, err
	}
	before := s.registry.Count(faultreg.Match{Kind: faultreg.Blob})
	if _, err := s.proxy.Toxics.AddToxicJson(strings.NewReader(string(raw))); err != nil {
		return false, fmt.Errorf("toxiproxy: %w", err)
	}
	sleep(ctx, st.lasts)
	acted := until(ctx, actLimit,
		func() bool { return s.registry.Count(faultreg.Match{Kind: faultreg.Blob}) > before })
	limited, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if err := s.proxy.Toxics.RemoveToxic(limited, f.kind); err != nil {
		return false, fmt.Errorf("toxiproxy: %w", err)
	}
	return acted, nil
}

// toxics are toxiproxy's kinds.
func toxics() []fault {
	return []fault{
		toxic{"latency", none, func(rng *rand.Rand) map[string]int64 {
			return map[string]int64{"latency": 20 + rng.Int64N(200), "jitter": rng.Int64N(20)} // ms
		}},
		toxic{"bandwidth", none, func(rng *rand.Rand) map[string]int64 { return map[string]int64{"rate": 1000 + rng.Int64N(4000)} }}, // KB/s
		toxic{"slicer", none, func(rng *rand.Rand) map[string]int64 {
			return map[string]int64{"average_size": 200 + rng.Int64N(2000), "size_variation": 100, "delay": 10} // bytes, µs
		}},
		toxic{"slow_close", none, func(rng *rand.Rand) map[string]int64 { return map[string]int64{"delay": rng.Int64N(1000)} }}, // ms
		toxic{"timeout", refused, func(*rand.Rand) map[string]int64 { return map[string]int64{"timeout": 0} }},                  // nothing comes any more
		toxic{"reset_peer", refused,
			func(rng *rand.Rand) map[string]int64 { return map[string]int64{"timeout": rng.Int64N(50)} }},
		toxic{"limit_data", refused,
			func(rng *rand.Rand) map[string]int64 { return map[string]int64{"bytes": rng.Int64N(200 << 10)} }},
	}
}
