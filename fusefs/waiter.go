package fusefs

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// killPoll is how often a waiting call whose caller got a signal looks whether that caller is being
// killed.
const killPoll = 200 * time.Millisecond

// waiter is the context of one call that may have to wait for a blob. It is a single allocation for
// a call that need not: the channel, and the goroutine that watches over the caller, come with the
// first Done. Whoever makes one calls end.
type waiter struct {
	drain  *drain
	cancel <-chan struct{} // closed by go-fuse at an INTERRUPT, and when the connection is dead
	pid    uint32          // the calling thread; 0: not known
	limit  time.Duration   // how long the call may wait; 0: as long as it takes

	// mu guards what follows. Lock order: waiter.mu, drain.mu.
	mu      sync.Mutex
	why     error         // what ended it; nil while it goes on
	done    chan struct{} // nil until Done
	leave   chan struct{} // tells the watcher to end; nil without one
	watcher sync.WaitGroup
}

var _ context.Context = (*waiter)(nil)

// Deadline is never known: the limit begins when the waiting does.
func (w *waiter) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value holds nothing.
func (w *waiter) Value(any) any { return nil }

// Done begins to watch over the caller. It is closed when the caller is killed, the mount ends or
// the limit has passed.
func (w *waiter) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done != nil {
		return w.done
	}
	w.done = make(chan struct{})
	if w.why == nil {
		w.why = w.drain.enter()
	}
	if w.why != nil {
		close(w.done)
		return w.done
	}
	leave := make(chan struct{})
	w.leave = leave
	w.watcher.Go(func() { w.watch(leave) })
	return w.done
}

// Err tells whether Done is closed, or would be: a call that has not begun to wait when the mount
// ends begins nothing.
func (w *waiter) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.why == nil && w.done == nil && w.drain.stopped.Load() {
		w.why = errStopping
	}
	switch w.why {
	case nil:
		return nil
	case errSizeWait:
		return context.DeadlineExceeded
	}
	return context.Canceled
}

// explain returns what err, met under w, comes from.
func (w *waiter) explain(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if w.why != nil && ended {
		return w.why
	}
	return err
}

// end releases what Done began.
func (w *waiter) end() {
	w.mu.Lock()
	leave := w.leave
	w.leave = nil
	w.finish(context.Canceled)
	w.mu.Unlock()
	if leave != nil {
		close(leave)
		w.watcher.Wait()
		w.drain.leave()
	}
}

// finish ends w because of why, unless it has ended. Called with mu held.
func (w *waiter) finish(why error) {
	if w.why != nil {
		return
	}
	w.why = why
	if w.done != nil {
		close(w.done)
	}
}

// watch finishes w when there is a reason to, until leave is closed.
func (w *waiter) watch(leave <-chan struct{}) {
	why := w.reason(leave)
	if why == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finish(why)
}

// reason waits for a reason to give up; nil when leave came first. The kernel sends one INTERRUPT,
// for the first signal: a SIGKILL that comes after a signal with a handler is seen only by looking.
func (w *waiter) reason(leave <-chan struct{}) error {
	var limit, tick <-chan time.Time
	if w.limit > 0 {
		t := time.NewTimer(w.limit)
		defer t.Stop()
		limit = t.C
	}
	cancel := w.cancel
	for {
		select {
		case <-leave:
			return nil
		case <-w.drain.over:
			return errStopping
		case <-limit:
			return errSizeWait
		case <-cancel:
			cancel = nil
			t := time.NewTicker(killPoll)
			defer t.Stop()
			tick = t.C
		case <-tick:
		}
		if w.drain.dead() || killed(w.pid) {
			return errKilled
		}
	}
}

// killed reports whether the thread pid has a SIGKILL pending or is gone. It asks only for callers
// that got a signal, so a thread that cannot be named, 0, counts as killed: it lives in a pid
// namespace that is not ours or one of its parents.
func killed(pid uint32) bool {
	if pid == 0 {
		return true
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	switch {
	case err == nil:
		return killPending(status)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		// Gone, or hidden from us by hidepid, or there is no /proc: signal 0 tells these apart.
		return errors.Is(unix.Kill(int(pid), 0), unix.ESRCH)
	}
	return false
}

// killPending reports whether SIGKILL is in one of the masks of pending signals of a
// /proc/PID/status.
func killPending(status []byte) bool {
	const bit = 1 << (int(unix.SIGKILL) - 1)
	for line := range bytes.Lines(status) {
		name, mask, _ := bytes.Cut(line, []byte(":"))
		if n := string(name); n != "SigPnd" && n != "ShdPnd" {
			continue
		}
		v, err := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
		if err == nil && v&bit != 0 {
			return true
		}
	}
	return false
}
