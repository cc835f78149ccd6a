package fetch

import (
	"context"
	"sync/atomic"
)

// Class says who wants a fetch. The classes are admitted to the network strictly in this order.
type Class int32

// The classes, the most urgent first.
const (
	Reader     Class = iota // somebody waits for it
	Ahead                   // somebody is about to read it
	Background              // nobody has asked for it
)

// Urgency is the class of a fetch. It may rise while the fetch waits or is under way. The zero value is a Reader's.
type Urgency struct {
	class atomic.Int32
	line  atomic.Pointer[limiter] // where a request of it waited last
}

// NewUrgency returns the urgency of a fetch of a class.
func NewUrgency(c Class) *Urgency {
	u := new(Urgency)
	u.class.Store(int32(c))
	return u
}

// Class returns the present class.
func (u *Urgency) Class() Class { return Class(u.class.Load()) }

// Raise makes the fetch at least as urgent as c: its requests pass those that are less so at once.
func (u *Urgency) Raise(c Class) {
	for {
		old := u.class.Load()
		if int32(c) >= old {
			return
		}
		if u.class.CompareAndSwap(old, int32(c)) {
			break
		}
	}
	if l := u.line.Load(); l != nil {
		l.look()
	}
}

type urgencyKey struct{}

// WithUrgency returns a context whose requests have that urgency. Without it they are a Reader's.
func WithUrgency(ctx context.Context, u *Urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

func urgencyOf(ctx context.Context) *Urgency {
	if u, ok := ctx.Value(urgencyKey{}).(*Urgency); ok {
		return u
	}
	return new(Urgency)
}
