package soak

import (
	"fmt"
	"testing"
	"time"
)

// outline is what a plan says, without what the faults choose later.
func outline(p plan) (lines []string) {
	for _, st := range append(p.wire, p.local...) {
		lines = append(lines, fmt.Sprint(st.fault.Name(), st.lasts, st.rest, st.rng.Uint64()))
	}
	return lines
}

func TestPlanFollowsFromSeedAndRound(t *testing.T) {
	first := fmt.Sprint(outline(newPlan(7, 3)))
	if again := fmt.Sprint(outline(newPlan(7, 3))); again != first {
		t.Errorf("the same seed and round: got %s, want %s", again, first)
	}
	for name, p := range map[string]plan{"seed": newPlan(8, 3), "round": newPlan(7, 4)} {
		if fmt.Sprint(outline(p)) == first {
			t.Errorf("another %s makes the same plan", name)
		}
	}
}

func TestPlanHasEveryKind(t *testing.T) {
	p := newPlan(1, 0)
	n := map[string]int{}
	for _, st := range append(p.wire, p.local...) {
		n[st.fault.Name()]++
	}
	for _, f := range wireFaults() {
		if n[f.Name()] != 1 {
			t.Errorf("%s: got %d times, want once", f.Name(), n[f.Name()])
		}
	}
	for _, f := range localFaults() {
		if n[f.Name()] != passes {
			t.Errorf("%s: got %d times, want %d", f.Name(), n[f.Name()], passes)
		}
	}
}

func TestLedgerExplains(t *testing.T) {
	now := time.Now()
	l := &ledger{excuses: []*excuse{
		{kind: "ended", where: "twin", errs: []string{"ENOTCONN"}, from: now, to: now.Add(time.Second)},
		{kind: "on", errs: []string{"EIO"}, from: now.Add(time.Minute)},
	}}
	for _, c := range []struct {
		name       string
		where, err string
		start, end time.Duration
		want       string
	}{
		{"while it is on", "twin", "ENOTCONN", 0, time.Second, "ended"},
		{"within the grace", "twin", "ENOTCONN", grace, grace + time.Second, "ended"},
		{"after the grace", "twin", "ENOTCONN", grace + 2*time.Second, grace + 3*time.Second, ""},
		{"before it", "twin", "ENOTCONN", -time.Minute, -time.Second, ""},
		{"on another mount", "fork", "ENOTCONN", 0, time.Second, ""},
		{"another error", "twin", "EIO", 0, time.Second, ""},
		{"everywhere, with no end yet", "fork", "EIO", time.Hour, time.Hour + time.Second, "on"},
		{"ends before it begins", "fork", "EIO", 0, time.Second, ""},
	} {
		got := l.explains(outcome{where: []string{c.where}, err: c.err, start: now.Add(c.start),
			end: now.Add(c.end)})
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
