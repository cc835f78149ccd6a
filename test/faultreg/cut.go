package faultreg

import (
	"errors"
	"net"
	"net/http"
)

// Framing is how an answer tells its length.
type Framing int

// The framings: Content-Length as the registry sends it; chunked; until the connection closes (then a
// cut by FIN looks like a complete body).
const (
	WithLength Framing = iota
	Chunked
	UntilClose
)

// Cut ends the connection in the middle of a body.
type Cut struct {
	Percent float64 // of the whole blob, also when a range of it is asked for; 0: After counts
	After   int64   // bytes of this answer's body
	RST     bool    // reset; else FIN
	Framing Framing
}

var errCut = errors.New("cut")

// Fault is the cut as a fault.
func (c Cut) Fault() Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		left := c.After
		e := &editor{ResponseWriter: w}
		e.span = func(start, total int64, h http.Header) {
			if c.Percent > 0 && total >= 0 {
				left = max(0, int64(float64(total)*c.Percent/100)-start)
			}
			c.frame(h)
		}
		e.body = func(_ int64, p []byte) (int, error) {
			if int64(len(p)) < left {
				left -= int64(len(p))
				return w.Write(p)
			}
			n, err := w.Write(p[:left])
			if err == nil {
				err = errCut
			}
			c.end(w)
			return n, err
		}
		next.ServeHTTP(e, r)
	}
}

func (c Cut) frame(h http.Header) {
	if c.Framing != WithLength {
		h.Del("Content-Length")
	}
	if c.Framing == UntilClose {
		h.Set("Transfer-Encoding", "identity") // net/http's way to say so
	}
}

// end sends what was written and closes the connection.
func (c Cut) end(w http.ResponseWriter) {
	rc := http.NewResponseController(w)
	rc.Flush()
	conn, _, err := rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the stream is reset
	}
	if tcp, ok := conn.(*net.TCPConn); ok && c.RST {
		tcp.SetLinger(0)
	}
	conn.Close()
}
