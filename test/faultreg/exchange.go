package faultreg

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// Kind is what a request asks for.
type Kind int

// The kinds of request; Any is a Match's zero value.
const (
	Any Kind = iota
	Ping
	Manifest
	Blob
	Upload
	Other
)

// Exchange is one request and its answer.
type Exchange struct {
	Method, Path, Query string
	Kind                Kind
	Repo, Ref           string // Ref: tag or digest
	Remote              string // the client's address
	Header              http.Header
	Status              int // 0: no answer yet, or none at all
	Sent                http.Header
	Bytes               int64 // of the answer's body
	Start, End          time.Time
}

// record keeps the exchanges in order of arrival.
type record struct {
	mu       sync.Mutex
	list     []*Exchange
	inFlight int
	peak     int
}

// Log is a copy of all exchanges since the start or Reset, in order of arrival.
func (l *record) Log() []Exchange {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Exchange, len(l.list))
	for i, x := range l.list {
		out[i] = *x
	}
	return out
}

// Reset forgets the exchanges; the peak becomes what is in flight now.
func (l *record) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list, l.peak = nil, l.inFlight
}

// Count is the number of exchanges that m matches; From and Count are ignored.
func (l *record) Count(m Match) int {
	n := 0
	for _, x := range l.Log() {
		if m.matches(&x) {
			n++
		}
	}
	return n
}

// Gets counts the GET requests of a kind by tag or digest.
func (l *record) Gets(k Kind) map[string]int {
	refs := map[string]int{}
	for _, x := range l.Log() {
		if x.Kind == k && x.Method == http.MethodGet {
			refs[x.Ref]++
		}
	}
	return refs
}

// Sent is the number of body bytes sent since the start or Reset.
func (l *record) Sent() int64 {
	var n int64
	for _, x := range l.Log() {
		n += x.Bytes
	}
	return n
}

// Peak is the highest number of requests in flight at once since the start or Reset.
func (l *record) Peak() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peak
}

// InFlight is the number of requests being answered now.
func (l *record) InFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inFlight
}

// begin notes a request and gives the writer that notes its answer.
func (l *record) begin(w http.ResponseWriter, r *http.Request) *recorder {
	x := &Exchange{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Remote: r.RemoteAddr,
		Header: r.Header.Clone(), Start: time.Now(),
	}
	x.Kind, x.Repo, x.Ref = parsePath(r.URL.Path)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, x)
	l.inFlight++
	l.peak = max(l.peak, l.inFlight)
	return &recorder{ResponseWriter: w, log: l, x: x}
}

func (l *record) end(rec *recorder) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rec.x.End = time.Now()
	l.inFlight--
}

// recorder notes status, headers and length of an answer.
type recorder struct {
	http.ResponseWriter
	log *record
	x   *Exchange
}

// Unwrap lets http.ResponseController flush and hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	r.note(status, 0)
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	n, err := r.ResponseWriter.Write(p)
	r.note(http.StatusOK, n)
	return n, err
}

func (r *recorder) note(status, n int) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.x.Status == 0 {
		r.x.Status, r.x.Sent = status, r.Header().Clone()
	}
	r.x.Bytes += int64(n)
}

// parsePath splits a distribution API path.
func parsePath(path string) (k Kind, repo, ref string) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return Other, "", ""
	}
	if rest == "" {
		return Ping, "", ""
	}
	if i := strings.Index(rest, "/blobs/uploads/"); i >= 0 {
		return Upload, rest[:i], rest[i+len("/blobs/uploads/"):]
	}
	if i := strings.LastIndex(rest, "/blobs/"); i >= 0 {
		return Blob, rest[:i], rest[i+len("/blobs/"):]
	}
	if i := strings.LastIndex(rest, "/manifests/"); i >= 0 {
		return Manifest, rest[:i], rest[i+len("/manifests/"):]
	}
	return Other, "", ""
}

func isDigest(ref string) bool { return strings.HasPrefix(ref, "sha256:") }
