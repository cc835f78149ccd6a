package daemon

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// secondAfter is the least time between the first signal and the end by a second one: programs
	// such as timeout(1) send one signal twice, and a command that ends in order by then is left to
	// do so.
	secondAfter = 250 * time.Millisecond
	// secondGrace is how long a mount, or a command that starts one, may take down what outlives
	// its process.
	secondGrace = time.Second
)

// Interrupts are the signals that end a command. The first ends its context, the second ends the
// process, whatever its goroutines compute or wait for. A nil one has no second signal.
type Interrupts struct {
	mu   sync.Mutex // guards last
	last func()     // runs before the end by a second signal; nil: nothing does
}

// CatchInterrupts returns a context that the first SIGINT or SIGTERM ends. The second ends the
// process with the code.
func CatchInterrupts(code int) (*Interrupts, context.Context, context.CancelFunc) {
	in := new(Interrupts)
	both := make(chan os.Signal, 2)
	signal.Notify(both, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-both
		first := time.Now()
		<-both
		time.Sleep(secondAfter - time.Since(first))
		in.leave(code)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	return in, ctx, stop
}

// leave ends the process, after last or twice secondGrace.
func (in *Interrupts) leave(code int) {
	in.mu.Lock()
	last := in.last
	in.mu.Unlock()
	if last != nil {
		time.AfterFunc(2*secondGrace, func() { os.Exit(code) })
		last()
	}
	os.Exit(code)
}

// AtSecond has last run before a second signal ends the process, in place of what was said before.
func (in *Interrupts) AtSecond(last func()) {
	if in == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.last = last
}
