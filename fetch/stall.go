package fetch

import "time"

// epoch is what the clocks of watches count from: monotonic, whatever happens to the time of day.
var epoch = time.Now()

const (
	// lateness is by how much a clock that goes off late shows that this process stood still: it was stopped, its cgroup
	// frozen, the machine asleep.
	lateness = 100 * time.Millisecond
	// catchUp is the time then to read what came meanwhile, before its absence counts.
	catchUp = time.Second
)

// expire ends a request whose clock went off. After a standstill it looks again a moment later: what the server sent
// meanwhile lies in the socket, and is no stall.
func (w *watch) expire() {
	due := w.due.Load()
	if due == 0 || time.Since(epoch) < time.Duration(due) {
		return // it was stopped, or set anew, in the moment in which it went off
	}
	if time.Since(epoch)-time.Duration(due) > lateness {
		time.Sleep(min(catchUp, w.limit))
		if w.due.Load() != due {
			return // somebody has read, or need not
		}
	}
	w.cancel(errStalled)
}
