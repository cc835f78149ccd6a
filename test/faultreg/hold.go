package faultreg

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// Hold stalls requests until it is released or their client leaves.
type Hold struct {
	release func()
	free    chan struct{}
	waiting atomic.Int64
}

// NewHold is a hold that stalls everything that a rule gives it.
func NewHold() *Hold {
	free := make(chan struct{})
	return &Hold{free: free, release: sync.OnceFunc(func() { close(free) })}
}

// Release lets all go on, now and later.
func (h *Hold) Release() { h.release() }

// Waiting is the number of requests stalled now.
func (h *Hold) Waiting() int { return int(h.waiting.Load()) }

func (h *Hold) wait(r *http.Request) {
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	select {
	case <-h.free:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// Fault stalls before the first byte.
func (h *Hold) Fault() Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		h.wait(r)
		next.ServeHTTP(w, r)
	}
}

// After stalls when n bytes of the body are sent.
func (h *Hold) After(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		left := n
		body := func(_ int64, p []byte) (int, error) {
			if left < 0 || int64(len(p)) <= left {
				left -= int64(len(p))
				return w.Write(p)
			}
			m, err := w.Write(p[:left])
			if err != nil {
				return m, err
			}
			left = -1
			http.NewResponseController(w).Flush()
			h.wait(r)
			rest, err := w.Write(p[m:])
			return m + rest, err
		}
		next.ServeHTTP(&editor{ResponseWriter: w, body: body}, r)
	}
}
