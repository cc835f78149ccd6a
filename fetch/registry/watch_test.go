package registry

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// TestStall is a registry that stops in the middle: the read ends within one bound.
func TestStall(t *testing.T) {
	t.Parallel() // it waits
	p := registrytest.Layer{Content: registrytest.Noise(1 << 20)}
	release := make(chan struct{})
	defer close(release)
	for _, sent := range []int{-1, 0, 1000} { // no header, no body, some body
		o := quickOptions()
		o.StallTimeout = 5 * time.Second
		f, im := oneBlob(t, p, o)
		f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
			if sent >= 0 {
				_, _ = w.Write(p.Stored()[:sent])
				w.(http.Flusher).Flush()
			}
			<-release
			return true
		})
		start := time.Now()
		err := im.Blob(context.Background(), p.Logical(), 1<<20, &registrytest.Buffer{})
		if !errors.Is(err, ErrRegistry) || !strings.Contains(err.Error(), "no byte arrived in time (5s)") {
			t.Errorf("%d bytes sent: got %v", sent, err)
		}
		if d := time.Since(start); d < 4*time.Second {
			t.Errorf("%d bytes sent: took %s", sent, d)
		}
	}
}

// TestTrickle is slow but never silent: it is no stall.
func TestTrickle(t *testing.T) {
	t.Parallel() // it waits
	p := registrytest.Layer{Content: registrytest.Noise(24 << 10)}
	o := quickOptions()
	o.StallTimeout = 10 * time.Second
	f, im := oneBlob(t, p, o)
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		wire := p.Stored()
		for len(wire) > 0 {
			n := min(2<<10, len(wire))
			_, _ = w.Write(wire[:n])
			w.(http.Flusher).Flush()
			wire = wire[n:]
			time.Sleep(time.Second)
		}
		return true
	})
	if err := im.Blob(context.Background(), p.Logical(), 24<<10, &registrytest.Buffer{}); err != nil {
		t.Error(err)
	}
}

func TestRetryIsCancelled(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	o := quickOptions()
	o.Retry.Base, o.Retry.Ceiling = time.Hour, time.Hour
	f, im := oneBlob(t, p, o)
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(503)
		return true
	})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := im.Blob(ctx, p.Logical(), 7, &registrytest.Buffer{}); !errors.Is(err,
		context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestStandstill has the stall clock go off late, as after a stop of the whole process: what came
// meanwhile is read first, and only a server that sent nothing has stalled.
func TestStandstill(t *testing.T) {
	for name, reads := range map[string]bool{"bytes came": true, "nothing came": false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatch(context.Background(), 30*time.Second)
			w.start()
			w.due.Store(int64(time.Since(epoch))) // an hour later it is late
			time.AfterFunc(30*time.Second+catchUp/2, func() {
				if reads {
					w.stop()
				}
			})
			time.Sleep(time.Hour)
			if stalled := errors.Is(context.Cause(w.ctx), errStalled); stalled == reads {
				t.Errorf("%s: stalled %v", name, stalled)
			}
			w.cancel(nil)
		})
	}
}

// TestClockGoesOffLate: a clock that goes off when it was stopped, or set anew, in that very moment
// ends nothing.
func TestClockGoesOffLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch(context.Background(), 30*time.Second)
		w.start()
		w.expire() // of the time before
		w.stop()
		w.expire()
		if err := context.Cause(w.ctx); err != nil {
			t.Errorf("ended: %v", err)
		}
		w.cancel(nil)
	})
}
