package sched

import "sync/atomic"

// Class is the kind of wish behind a request. The classes are admitted strictly in this order.
type Class int32

// The classes, the most urgent first.
const (
	Reader     Class = iota // a reader waits for it
	Ahead                   // it is expected to be read soon
	Background              // it is not asked for
)

// Priority is the class of a fetch. It may rise while the fetch waits or is under way. The zero
// value is a Reader's.
type Priority struct {
	class atomic.Int32
	queue atomic.Pointer[Limiter] // where a request of it waited last
}

// NewPriority returns the priority of a fetch of a class.
func NewPriority(c Class) *Priority {
	p := new(Priority)
	p.class.Store(int32(c))
	return p
}

// Class returns the present class.
func (p *Priority) Class() Class { return Class(p.class.Load()) }

// Raise makes the fetch at least as urgent as c: its requests pass those that are less so at once.
func (p *Priority) Raise(c Class) {
	for {
		old := p.class.Load()
		if int32(c) >= old {
			return
		}
		if p.class.CompareAndSwap(old, int32(c)) {
			break
		}
	}
	if l := p.queue.Load(); l != nil {
		l.wake()
	}
}
