package faultreg

import (
	"net/http"
	"strconv"
	"strings"
)

// editor changes an answer on its way out.
type editor struct {
	http.ResponseWriter
	head func(h http.Header, status int)             // before the headers go
	body func(at int64, p []byte) (n int, err error) // in place of Write; at: offset in the blob
	span func(start, total int64, h http.Header)     // tells where the answer begins and the blob's length (-1 unknown)
	at   int64
	sent bool
}

// Unwrap lets http.ResponseController flush and hijack.
func (e *editor) Unwrap() http.ResponseWriter { return e.ResponseWriter }

func (e *editor) WriteHeader(status int) {
	if e.sent {
		return
	}
	e.sent = true
	h := e.Header()
	start, total := contentSpan(h)
	e.at = start
	if e.span != nil {
		e.span(start, total, h)
	}
	if e.head != nil {
		e.head(h, status)
	}
	e.ResponseWriter.WriteHeader(status)
}

func (e *editor) Write(p []byte) (int, error) {
	e.WriteHeader(http.StatusOK)
	at := e.at
	e.at += int64(len(p))
	if e.body != nil {
		return e.body(at, p)
	}
	return e.ResponseWriter.Write(p)
}

// edit is a fault that changes bytes and keeps their number.
func edit(change func(at int64, p []byte) []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&editor{ResponseWriter: w, body: func(at int64, p []byte) (int, error) {
			return w.Write(change(at, p))
		}}, r)
	}
}

// contentSpan reads Content-Range or Content-Length: where the body begins in the blob, and the
// blob's length.
func contentSpan(h http.Header) (start, total int64) {
	if rng, ok := strings.CutPrefix(h.Get("Content-Range"), "bytes "); ok {
		span, all, _ := strings.Cut(rng, "/")
		first, _, _ := strings.Cut(span, "-")
		start, _ = strconv.ParseInt(first, 10, 64)
		total, err := strconv.ParseInt(all, 10, 64)
		if err != nil {
			total = -1
		}
		return start, total
	}
	total, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil {
		total = -1
	}
	return 0, total
}
