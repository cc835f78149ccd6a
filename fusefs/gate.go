package fusefs

import (
	"sync"
	"sync/atomic"
	"time"
)

// answerTime is how long calls that were told to give up may take to do so before nobody waits for them any longer.
const answerTime = 500 * time.Millisecond

// gate ends waiting calls with the mount. While it is open calls enter it to wait; after stop none does, and those inside
// leave when they have what they wait for, at the latest when over is closed.
type gate struct {
	over chan struct{} // closed when waiting calls must give up
	idle chan struct{} // closed when the gate is shut and empty
	dead func() bool   // whether the kernel has dropped the connection

	shut atomic.Bool // written under mu

	// mu guards what follows.
	mu      sync.Mutex
	waiting int
	emptied bool // idle is closed
	endOver func()
}

func newGate() *gate {
	g := &gate{over: make(chan struct{}), idle: make(chan struct{}), dead: func() bool { return false }}
	g.endOver = sync.OnceFunc(func() {
		close(g.over)
		time.AfterFunc(answerTime, g.giveUp)
	})
	return g
}

// enter counts a call that begins to wait; errStopping when the gate is shut.
func (g *gate) enter() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut.Load() {
		return errStopping
	}
	g.waiting++
	return nil
}

// leave ends what a successful enter began.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	g.settle(false)
}

// stop shuts the gate and returns idle. Those inside have the time grace; another stop can only shorten it.
func (g *gate) stop(grace time.Duration) <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut.Store(true)
	g.settle(false)
	if !g.emptied {
		time.AfterFunc(grace, g.endOver)
	}
	return g.idle
}

// giveUp counts the gate as empty, whoever is still inside.
func (g *gate) giveUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settle(true)
}

// settle closes idle when it is time. Called with mu held.
func (g *gate) settle(anyway bool) {
	if g.shut.Load() && (g.waiting == 0 || anyway) && !g.emptied {
		g.emptied = true
		close(g.idle)
	}
}
