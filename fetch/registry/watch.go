package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// epoch is what the clocks of watches count from: monotonic, whatever happens to the time of day.
var epoch = time.Now()

const (
	// lateness is by how much a clock that goes off late shows that this process stood still: it
	// was stopped, its cgroup frozen, the machine asleep.
	lateness = 100 * time.Millisecond
	// catchUp is the time then to read what came meanwhile, before its absence counts.
	catchUp = time.Second
)

// watch ends a request that brings nothing for a while. Its clock runs only while a caller waits
// for bytes.
type watch struct {
	ctx    context.Context
	parent context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
	due    atomic.Int64 // when the clock goes off, in nanoseconds since epoch; 0: it stands

	mu       sync.Mutex // guards answered
	answered bool
}

func newWatch(parent context.Context, limit time.Duration) *watch {
	w := &watch{parent: parent, limit: limit}
	w.ctx, w.cancel = context.WithCancelCause(parent)
	w.timer = time.AfterFunc(limit, w.expire)
	w.timer.Stop()
	return w
}

func (w *watch) start() {
	w.due.Store(int64(time.Since(epoch) + w.limit))
	w.timer.Reset(w.limit)
}

func (w *watch) stop() {
	w.due.Store(0)
	w.timer.Stop()
}

// explain replaces the error of a request that the watch ended.
func (w *watch) explain(err error) error {
	if w.parent.Err() != nil {
		return err
	}
	switch cause := context.Cause(w.ctx); {
	case errors.Is(cause, errStalled):
		return fmt.Errorf("%w (%s)", errStalled, w.limit)
	case errors.Is(cause, errRepeats):
		return cause
	}
	return err
}

// expire ends a request whose clock went off. After a standstill it looks again a moment later:
// what the server sent meanwhile lies in the socket, and is no stall.
func (w *watch) expire() {
	due := w.due.Load()
	if due == 0 || time.Since(epoch) < time.Duration(due) {
		return // it was stopped, or set anew, in the moment in which it went off
	}
	if time.Since(epoch)-time.Duration(due) > lateness {
		time.Sleep(min(catchUp, w.limit))
		if w.due.Load() != due {
			return // a byte came, or none is due
		}
	}
	w.cancel(errStalled)
}

// watchedBody is a response's body: it holds the request's place at its host and restarts the stall
// clock at each read.
type watchedBody struct {
	rc      io.ReadCloser
	watch   *watch
	release func()
	bytes   *atomic.Int64
	left    int64 // of Content-Length; negative: unknown
	h1      bool
	broke   func(error) // told of an error of rc, unless nil
	err     error
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.watch.start()
	n, err := b.rc.Read(p)
	b.watch.stop()
	b.bytes.Add(int64(n))
	if b.left >= 0 {
		b.left -= int64(n)
	}
	if err == nil && n > 0 && b.left == 0 && b.h1 {
		// net/http gives the connection back when it has said io.EOF, which costs no wait here.
		_, err = b.rc.Read(make([]byte, 1))
	}
	if err != nil {
		if err != io.EOF {
			err = b.watch.explain(err)
			if b.broke != nil {
				b.broke(err)
			}
		}
		b.err = err
		b.release()
	}
	return n, err
}

// Close gives up the rest. What is short and announced is read first, so that the connection can be
// used again.
func (b *watchedBody) Close() error {
	if b.err == nil && b.h1 && b.left > 0 && b.left <= maxErrorBody {
		_, _ = io.Copy(io.Discard, io.LimitReader(b, b.left))
	}
	err := b.rc.Close()
	b.watch.stop()
	b.watch.cancel(nil)
	b.release()
	return err
}

// watchBody returns the request to send in place of req: sending a piece of its body starts the
// stall clock again.
func (w *watch) watchBody(req *http.Request) *http.Request {
	sent := req.WithContext(w.ctx)
	if req.Body != nil && req.Body != http.NoBody {
		sent.Body = &sentBody{ReadCloser: req.Body, watch: w}
	}
	return sent
}

// sentBody is the body of a request.
type sentBody struct {
	io.ReadCloser
	watch *watch
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.watch.restart()
	return b.ReadCloser.Read(p)
}

// restart starts the clock again, unless the answer is there: the transport may still read the body
// then.
func (w *watch) restart() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.answered {
		w.start()
	}
}

// answerArrived stops the clock at the answer.
func (w *watch) answerArrived() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered = true
	w.stop()
}
