package sched

import "time"

// How long requests that no reader waits for pause after a failure: the first pause, and the
// longest. A Retry-After counts when it is longer.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// Report tells how a request went. wait is how long the server asks to wait, 0 when it does not.
func (l *Limiter) Report(failed bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	paused := now.Before(l.until[Background])
	switch {
	case !failed:
		l.failed = 0
		if l.until[Ahead].After(l.asked) {
			l.until[Ahead] = l.asked
			l.admit()
		}
		return
	case wait > 0:
		l.asked = later(l.asked, now.Add(min(wait, lastPause)))
		l.until[Ahead] = later(l.until[Ahead], l.asked)
		l.until[Background] = later(l.until[Background], l.asked)
	case paused:
		return // it began before, or beside, the failure that is known
	default:
		l.until[Background] = now.Add(min(firstPause<<min(l.failed, 8), lastPause))
		if l.failed > 0 {
			l.until[Ahead] = l.until[Background]
		}
	}
	if !paused {
		l.failed++
	}
	for _, until := range l.until[Ahead:] {
		if until.After(now) {
			time.AfterFunc(until.Sub(now), l.wake)
		}
	}
}

// later is the later of two moments.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
