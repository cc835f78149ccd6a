package fusefs

import (
	"sync"
	"sync/atomic"
	"time"
)

// answerTime is how long calls that were told to give up may take to do so before they are no
// longer waited for.
const answerTime = 500 * time.Millisecond

// drain ends waiting calls with the mount. Calls enter it to wait; after stop none does, and those
// inside leave when they have what they wait for, at the latest when over is closed.
type drain struct {
	over chan struct{} // closed when waiting calls must give up
	idle chan struct{} // closed when the drain is stopped and empty
	dead func() bool   // whether the kernel has dropped the connection

	stopped atomic.Bool // written under mu

	// mu guards what follows.
	mu      sync.Mutex
	waiting int
	emptied bool // idle is closed
	endOver func()
}

func newDrain() *drain {
	d := &drain{over: make(chan struct{}), idle: make(chan struct{})}
	d.dead = func() bool { return false }
	d.endOver = sync.OnceFunc(func() {
		close(d.over)
		time.AfterFunc(answerTime, d.giveUp)
	})
	return d
}

// enter counts a call that begins to wait; errStopping after stop.
func (d *drain) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped.Load() {
		return errStopping
	}
	d.waiting++
	return nil
}

// leave ends what a successful enter began.
func (d *drain) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting--
	d.settle(false)
}

// stop lets no call enter any more and returns idle. Those inside have the time grace; another stop
// can only shorten it.
func (d *drain) stop(grace time.Duration) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped.Store(true)
	d.settle(false)
	if !d.emptied {
		time.AfterFunc(grace, d.endOver)
	}
	return d.idle
}

// giveUp counts the drain as empty, whatever is still inside.
func (d *drain) giveUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle(true)
}

// settle closes idle when it is time. Called with mu held.
func (d *drain) settle(anyway bool) {
	if d.stopped.Load() && (d.waiting == 0 || anyway) && !d.emptied {
		d.emptied = true
		close(d.idle)
	}
}
