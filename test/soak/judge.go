package soak

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// The numbers below follow from what is documented: a stall is given up after --stall-timeout and
// not tried again; a download that fails otherwise is tried 5 times, with waits of 0.25, 0.5, 1 and
// 2 s at most, or the Retry-After that the faults send (1 s); wrong bytes make a second download; a
// failure is answered for one second more, and a host that is down is asked once a second. A reader
// may wait for another process's fill before its own.
const (
	stallTimeout = 2 * time.Second
	oneDownload  = stallTimeout + 4*2*time.Second
	// grace is how long after its end a network fault may still show: the request that it stalled,
	// the second in which a failure is repeated, the second between two probes, and as much again
	// for a busy machine.
	grace = stallTimeout + 4*time.Second
	// bound is the longest that one read or one command may take: two downloads here, two in
	// another process, the longest fault, and slack for a busy machine.
	bound = 4*oneDownload + 20*time.Second
)

// excuse says which errors a fault explains, and where.
type excuse struct {
	kind     string
	where    string // a mount's or a cache's name; "" everywhere
	errs     []string
	from, to time.Time // to is zero while the fault is on
}

// outcome is how one read or command ended.
type outcome struct {
	what       string
	where      []string // the mount's and its cache's names
	err        string   // "", an errno's name, "SIGBUS", or "exit N"
	detail     string
	start, end time.Time
}

// ledger knows which faults are and were on.
type ledger struct {
	mu      sync.Mutex // guards excuses
	excuses []*excuse
}

// begin notes that a fault is on; the function that it gives ends it.
func (l *ledger) begin(kind, where string, errs ...string) (end func()) {
	x := &excuse{kind: kind, where: where, errs: errs, from: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.excuses = slices.DeleteFunc(l.excuses,
		func(x *excuse) bool { return !x.to.IsZero() && time.Since(x.to) > 2*bound })
	l.excuses = append(l.excuses, x)
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		x.to = time.Now()
	})
}

// explains names a fault that explains an error, or "".
func (l *ledger) explains(o outcome) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.excuses {
		if x.where != "" && !slices.Contains(o.where, x.where) || !slices.Contains(x.errs, o.err) {
			continue
		}
		if x.from.Before(o.end) && (x.to.IsZero() || o.start.Before(x.to.Add(grace))) {
			return x.kind
		}
	}
	return ""
}

// judge counts an outcome and fails the run when nothing explains it or it took too long.
func (s *stage) judge(o outcome) {
	took := o.end.Sub(o.start)
	s.counts.slowest(took)
	if took > bound {
		s.fail("%s took %v, more than %v", o.what, took, bound)
	}
	if o.err == "" {
		return
	}
	kind := s.ledger.explains(o)
	if kind == "" {
		s.fail("%s: %s, and no fault explains it: %s", o.what, o.err, o.detail)
		return
	}
	s.counts.add(cleanErrors, 1)
	s.counts.add(cleanErrors+" "+o.err, 1)
	s.counts.add(cleanErrors+" by "+kind, 1)
}

// fail records a verdict against the product and ends the run; the first one is the one to look at.
func (s *stage) fail(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	s.journal.note("FAIL %s", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, text)
	s.cancel()
}
