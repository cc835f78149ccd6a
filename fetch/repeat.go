package fetch

import (
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// maxRepeats is how often net/http may send one request again by itself. It does so when an idle connection turns out to
// be dead, once for each that it has kept: with 32 of them that would be 32 requests of which no policy knows.
const maxRepeats = 2

// errRepeats ends a request that net/http would go on repeating; the retry policy has the next word.
var errRepeats = errors.New("connection after connection was closed without an answer")

// limitRepeats counts what net/http sends. When a second connection is needed, the idle ones are as dead as the first
// one was: without them the next is a new one, whose failure net/http reports.
func (t *transport) limitRepeats(req *http.Request, w *watch) *http.Request {
	var conns atomic.Int64
	return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			n := conns.Add(1)
			if n == 1 {
				return
			}
			t.traffic.Requests.Add(1)
			if n > 1+maxRepeats {
				w.cancel(errRepeats)
				return
			}
			if idle, ok := t.sender(req.Context()).(*http.Transport); ok {
				idle.CloseIdleConnections()
			}
		},
	}))
}
