package faultreg

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Fault answers a request in place of next, or changes what next answers.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Chain puts faults one inside the other, the first outermost.
func Chain(faults ...Fault) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		for i := len(faults) - 1; i > 0; i-- {
			f, inner := faults[i], next
			next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, inner) })
		}
		faults[0](w, r, next)
	}
}

// Answer is a scripted answer; header alternates names and values. Without a Content-Type it is plain text.
func Answer(status int, body string, header ...string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// Body answers a GET or HEAD with these bytes, whatever was asked for; ranges are honoured.
func Body(contentType string, data []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

// Delay waits before the request is passed on.
func Delay(d time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !wait(r.Context(), d) {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	}
}

// Redirect sends the client to the same path at another server, with query added: a signed URL.
func Redirect(base, query string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, base+r.URL.Path+"?"+query, http.StatusTemporaryRedirect)
	}
}

// IgnoreRange answers range requests with the whole body and 200.
func IgnoreRange() Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		next.ServeHTTP(w, r)
	}
}

// With sets response headers; names and values alternate.
func With(header ...string) Fault {
	return Headers(func(h http.Header, _ int) {
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
	})
}

// Headers edits the response's headers, given its status, before they are sent.
func Headers(edit func(h http.Header, status int)) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&editor{ResponseWriter: w, head: edit}, r)
	}
}

// Length lies about the body's length. A longer one ends in a closed connection, a shorter one in a cut body.
func Length(n int64) Fault { return With("Content-Length", strconv.FormatInt(n, 10)) }

// Flip inverts the byte at an offset of the blob, in whichever range it is asked for.
func Flip(offset int64) Fault {
	return edit(func(at int64, p []byte) []byte {
		if offset < at || offset >= at+int64(len(p)) {
			return p
		}
		p = bytes.Clone(p)
		p[offset-at] ^= 0xff
		return p
	})
}

// Trickle sends the body in pieces of n bytes with a pause before each.
func Trickle(n int, pause time.Duration) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&editor{ResponseWriter: w, body: func(_ int64, p []byte) (int, error) {
			return trickle(w, r, p, n, pause)
		}}, r)
	}
}

func trickle(w http.ResponseWriter, r *http.Request, p []byte, n int, pause time.Duration) (int, error) {
	done := 0
	for done < len(p) {
		if !wait(r.Context(), pause) {
			return done, r.Context().Err()
		}
		m, err := w.Write(p[done:min(len(p), done+n)])
		done += m
		if err != nil {
			return done, err
		}
		http.NewResponseController(w).Flush()
	}
	return done, nil
}

// Append sends further bytes behind the true body; the length headers say so, or nothing when chunked.
func Append(tail []byte, chunked bool) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&editor{ResponseWriter: w, head: func(h http.Header, _ int) {
			n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
			if chunked || err != nil {
				h.Del("Content-Length")
				return
			}
			h.Set("Content-Length", strconv.FormatInt(n+int64(len(tail)), 10))
		}}, r)
		w.Write(tail)
	}
}

// Endless sends status 200 and a body that ends only when the client has enough.
func Endless(contentType string, piece []byte) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		for r.Context().Err() == nil {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}
}

// Drop closes the connection without an answer.
func Drop() Fault {
	return func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }
}
