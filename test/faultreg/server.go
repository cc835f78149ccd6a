package faultreg

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options configures a Server; the zero value is an in-memory registry over http on a free loopback port.
type Options struct {
	Dir     string                                   // keeps blobs in this folder; "": in memory
	Addr    string                                   // "": 127.0.0.1:0
	Listen  func(addr string) (net.Listener, error)  // nil: net.Listen; for another network namespace
	TLS     *tls.Config                              // nil: plain http
	Wrap    func(registry http.Handler) http.Handler // stands before the registry, behind log and rules; logins
	Backend http.Handler                             // in place of a registry of its own; another Server's Backend
	Mirror  string                                   // be a pull-through cache of the registry with this URL
}

// Server is a registry with a log and rules.
type Server struct {
	record
	opts    Options
	rules   ruleList
	over    *overlay
	backend http.Handler
	handler http.Handler
	close   func() error

	mu   sync.Mutex // guards addr and http
	addr string
	http *http.Server
	busy sync.WaitGroup
}

// New starts a server; Close ends it.
func New(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Listen == nil {
		o.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	s := &Server{opts: o, addr: o.Addr, close: func() error { return nil }}
	registry := o.Backend
	if registry == nil {
		var err error
		if registry, s.close, err = newRegistry(o.Dir, o.Mirror); err != nil {
			return nil, err
		}
	}
	s.over = &overlay{next: registry, blobs: map[string]blobSource{}, manifests: map[string]rawManifest{}}
	s.backend, s.handler = s.over, s.over
	if o.Wrap != nil {
		s.handler = o.Wrap(s.over)
	}
	return s, s.Start()
}

// Start listens again after Stop, on the same address.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return nil
	}
	l, err := s.listen()
	if err != nil {
		return fmt.Errorf("fault registry: %w", err)
	}
	s.addr = l.Addr().String()
	if s.opts.TLS != nil {
		l = tls.NewListener(l, s.opts.TLS)
	}
	s.http = &http.Server{
		Handler:  http.HandlerFunc(s.serve),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go s.http.Serve(l)
	return nil
}

// listen tries for a while: a port just left may still be taken by a client's own outgoing connection.
func (s *Server) listen() (net.Listener, error) {
	for try := 0; ; try++ {
		l, err := s.opts.Listen(s.addr)
		if err == nil || try == 50 {
			return l, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Stop closes the port and every connection: the registry is gone. What it holds stays.
func (s *Server) Stop() {
	s.mu.Lock()
	srv := s.http
	s.http = nil
	s.mu.Unlock()
	if srv != nil {
		srv.Close()
	}
	s.busy.Wait()
}

// Close stops the server for good.
func (s *Server) Close() error {
	s.Stop()
	return s.close()
}

// Host is host:port.
func (s *Server) Host() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// URL is the server's base URL, without a final slash.
func (s *Server) URL() string {
	if s.opts.TLS != nil {
		return "https://" + s.Host()
	}
	return "http://" + s.Host()
}

// Ref names an image of this server as users type it; ref is a tag or a digest.
func (s *Server) Ref(repo, ref string) string {
	if isDigest(ref) {
		return s.Host() + "/" + repo + "@" + ref
	}
	return s.Host() + "/" + repo + ":" + ref
}

// Backend is the registry without its log and rules.
func (s *Server) Backend() http.Handler { return s.backend }

// On adds a rule behind those that are there.
func (s *Server) On(m Match, f Fault) *Rule { return s.rules.add(m, f) }

// ClearRules removes all rules. Requests that a Hold keeps stay held.
func (s *Server) ClearRules() { s.rules.clear() }

// serve logs a request, lets the first matching rule have it, and else answers.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.busy.Add(1)
	defer s.busy.Done()
	rec := s.begin(w, r)
	defer s.end(rec)
	f := s.rules.pick(rec.x)
	if f == nil {
		s.handler.ServeHTTP(rec, r)
		return
	}
	f(rec, r, s.handler)
}

// wait waits for d, or less when the client leaves; false then.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
