package registrytest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
)

// Script answers the n-th request of a path, counted from 1; false leaves it to the registry.
type Script = func(n int, w http.ResponseWriter, r *http.Request) bool

// Server serves blobs and manifests from memory, after asking a script.
type Server struct {
	*httptest.Server
	Mu       sync.Mutex // guards the fields below
	Content  map[string][]byte
	Script   Script
	requests []*http.Request
	seen     map[string]int
}

// NewServer starts a registry that stops when the test ends.
func NewServer(t *testing.T) *Server { return NewServerAt(t, "127.0.0.1:0") }

// NewServerAt starts a registry that listens on an address of this machine.
func NewServerAt(t *testing.T, addr string) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f := &Server{Content: map[string][]byte{}, seen: map[string]int{}}
	f.Server = &httptest.Server{Listener: ln, Config: &http.Server{Handler: f}}
	f.Start()
	t.Cleanup(f.Close)
	return f
}

func (f *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.Mu.Lock()
	f.requests = append(f.requests, r)
	f.seen[r.URL.Path]++
	n, script, body := f.seen[r.URL.Path], f.Script, f.Content[r.URL.Path]
	f.Mu.Unlock()
	if script != nil && script(n, w, r) {
		return
	}
	if body == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"UNKNOWN","message":"no such thing"}]}`)
		return
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", artifact.MediaTypeManifest)
		w.Header().Set("Docker-Content-Digest", DigestOf(body))
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body)) // knows Range
}

// Requests returns the requests so far.
func (f *Server) Requests() []*http.Request {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return slices.Clone(f.requests)
}

// Forget drops the requests so far.
func (f *Server) Forget() {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.requests = nil
}

// Count returns how many requests had path, or with a trailing * began with it.
func (f *Server) Count(path string) (n int) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	for p, c := range f.seen {
		prefix, ok := strings.CutSuffix(path, "*")
		if p == path || ok && strings.HasPrefix(p, prefix) {
			n += c
		}
	}
	return n
}

// Answer lets answer answer first from now on.
func (f *Server) Answer(answer Script) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Script = answer
}

// Host returns the registry's host and port.
func (f *Server) Host() string { return strings.TrimPrefix(f.URL, "http://") }

// Serve puts an image with these layers under a:latest.
func (f *Server) Serve(t testing.TB, parts ...Layer) {
	t.Helper()
	pf, sig := SignedManifest(t)
	raw := OCIManifest(t, parts...)
	f.Mu.Lock()
	defer f.Mu.Unlock()
	for _, b := range [][]byte{pf, sig} {
		f.Content["/v2/a/blobs/"+DigestOf(b)] = b
	}
	for _, p := range parts {
		f.Content[p.BlobPath()] = p.Stored()
	}
	f.Content["/v2/a/manifests/latest"] = raw
	f.Content["/v2/a/manifests/"+DigestOf(raw)] = raw
}

// Ref names the image of Serve.
func (f *Server) Ref(t testing.TB) ref.Ref { return Ref(t, f.Host()+"/a") }

// Cut writes half of body and breaks the connection, by FIN or RST.
func Cut(t *testing.T, w http.ResponseWriter, body []byte, length int, rst bool) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	fmt.Fprint(rw, "HTTP/1.1 200 OK\r\n")
	if length >= 0 {
		fmt.Fprintf(rw, "Content-Length: %d\r\n", length)
	} else {
		fmt.Fprint(rw, "Connection: close\r\n")
	}
	fmt.Fprint(rw, "\r\n")
	_, _ = rw.Write(body)
	_ = rw.Flush()
	if rst {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	_ = conn.Close()
}

// OnBlob makes answer answer the n-th request for the blob; false leaves it to the registry.
func (f *Server) OnBlob(p Layer, answer Script) {
	f.Answer(func(n int, w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path == p.BlobPath() && answer(n, w, r)
	})
}

// Blobs counts the requests for blobs.
func (f *Server) Blobs() int { return f.Count("/v2/a/blobs/*") }
