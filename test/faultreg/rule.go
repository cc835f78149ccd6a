package faultreg

import (
	"slices"
	"sync"
)

// Match says which requests a rule takes. Empty fields match everything.
type Match struct {
	Kind        Kind
	Method      string // "GET", …
	Repo        string
	Ref         string // tag, or digest as the request names it (of blobs: the wire digest)
	From, Count int    // takes Count requests (0: all), beginning with the From-th that matches (0 and 1: the first)
	Where       func(*Exchange) bool
}

func (m *Match) matches(x *Exchange) bool {
	return (m.Kind == Any || m.Kind == x.Kind) && (m.Method == "" || m.Method == x.Method) &&
		(m.Repo == "" || m.Repo == x.Repo) && (m.Ref == "" || m.Ref == x.Ref) &&
		(m.Where == nil || m.Where(x))
}

// Rule is a fault that waits for its requests.
type Rule struct {
	match Match
	fault Fault
	list  *ruleList
	seen  int // matching requests that reached the rule
	hits  int // requests that it took
}

// Hits is the number of requests that the rule took.
func (r *Rule) Hits() int {
	r.list.mu.Lock()
	defer r.list.mu.Unlock()
	return r.hits
}

// Off removes the rule.
func (r *Rule) Off() {
	r.list.mu.Lock()
	defer r.list.mu.Unlock()
	r.list.rules = slices.DeleteFunc(r.list.rules, func(o *Rule) bool { return o == r })
}

// ruleList holds the rules in order.
type ruleList struct {
	mu    sync.Mutex // also guards each rule's seen and hits
	rules []*Rule
}

func (l *ruleList) add(m Match, f Fault) *Rule {
	r := &Rule{match: m, fault: f, list: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = append(l.rules, r)
	return r
}

func (l *ruleList) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = nil
}

// pick gives the fault for a request, nil when no rule takes it.
func (l *ruleList) pick(x *Exchange) Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rules {
		if !r.match.matches(x) {
			continue
		}
		r.seen++
		if r.seen < r.match.From || (r.match.Count > 0 && r.hits >= r.match.Count) {
			continue
		}
		r.hits++
		return r.fault
	}
	return nil
}
