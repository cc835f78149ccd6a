package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
)

// TestRedirectedBlobs: a registry that keeps its blobs at another host behind signed URLs, as clouds do.
func TestRedirectedBlobs(t *testing.T) {
	t.Parallel()
	wire := func(s *site) faultreg.Match { return faultreg.Match{Ref: s.img.WireOf("world/fs/f")} }
	tests := []struct {
		name   string
		fault  func(s *site, store *faultreg.Server)
		at, of int // requests for the file's blob: at the store, of the registry
	}{
		{"well", func(*site, *faultreg.Server) {}, 1, 1},
		{"expired once", func(s *site, store *faultreg.Server) {
			store.On(faultreg.Match{Ref: wire(s).Ref, Count: 1},
				faultreg.Answer(403, "<Error>expired</Error>"))
		}, 2, 2},
		{"cut, and the URL expired meanwhile", func(s *site, store *faultreg.Server) {
			store.On(faultreg.Match{Ref: wire(s).Ref, Count: 1}, faultreg.Cut{Percent: 50, RST: true}.Fault())
			store.On(faultreg.Match{Ref: wire(s).Ref, Count: 1}, faultreg.Answer(400, ""))
		}, 3, 3},
		{"the store is down for a moment", func(s *site, store *faultreg.Server) {
			store.On(faultreg.Match{Ref: wire(s).Ref, Count: 2}, faultreg.Answer(503, ""))
		}, 3, 3},
		{"the store ignores ranges", func(s *site, store *faultreg.Server) {
			store.On(faultreg.Match{Ref: wire(s).Ref, Count: 1}, faultreg.Cut{Percent: 50}.Fault())
			store.On(wire(s), faultreg.IgnoreRange())
		}, 2, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			srv, ref := s.registry("5000", s.conf("registry.test"))
			store := s.serve(faultreg.Options{Addr: storeAddr + ":443", TLS: s.conf("store.test"),
				Backend: srv.Backend()})
			var n atomic.Int64
			srv.On(faultreg.Match{Kind: faultreg.Blob},
				func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					faultreg.Redirect("https://store.test",
						fmt.Sprintf("X-Signature=SECRET-%d", n.Add(1)))(w, r, next)
				})
			tt.fault(s, store)
			s.e.Set("OCI_BEARER", "SECRET-TOKEN")
			s.etcFile("docker/certs.d/registry.test:5000/ca.crt", s.ca.PEM) // serves what the registry leads to, too
			if said := s.reads(ref); strings.Contains(said, "SECRET") {
				t.Errorf("a secret is shown: %s", said)
			}
			if at, of := store.Gets(faultreg.Blob)[wire(s).Ref], srv.Gets(faultreg.Blob)[wire(s).Ref]; at != tt.at || of != tt.of {
				t.Errorf("%d requests at the store, %d at the registry, want %d and %d", at, of, tt.at, tt.of)
			}
			for _, x := range store.Log() {
				for _, name := range []string{"Authorization", "Referer", "Cookie"} {
					if v := x.Header.Get(name); v != "" {
						t.Errorf("%s went to the store: %q", name, v)
					}
				}
			}
			for _, x := range srv.Log() {
				if x.Header.Get("Authorization") != "Bearer SECRET-TOKEN" {
					t.Errorf("%s %s without the token", x.Method, x.Path)
				}
			}
		})
	}
}

// TestRefusedRedirects: where the bytes are not followed to, and what is said of it.
func TestRefusedRedirects(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, base, says string
		requests         int // for the file's blob
	}{
		{"from https to http", "http://store.test", "from https to http", 1},
		{"a store that is unknown", "https://none.invalid", "none.invalid", 5},
		{"a store without a certificate for its name", "https://store.test:8443", "certificate", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			srv, ref := s.registry("5000", s.conf("registry.test"))
			plain := s.serve(faultreg.Options{Addr: storeAddr + ":80", Backend: srv.Backend()})
			s.serve(faultreg.Options{Addr: storeAddr + ":8443", TLS: s.conf("other.test"),
				Backend: srv.Backend()})
			rule := srv.On(faultreg.Match{Ref: s.img.WireOf("world/fs/f")},
				faultreg.Redirect(tt.base, "X-Signature=SECRET"))
			ca := s.file("ca.pem", s.ca.PEM)
			if said := s.fails(5, []string{tt.says}, "--ca-file", ca, ref); strings.Contains(said, "SECRET") {
				t.Errorf("the signed URL is shown: %s", said)
			}
			if rule.Hits() != tt.requests || len(plain.Log()) != 0 {
				t.Errorf("%d requests, want %d; %d over plain HTTP", rule.Hits(), tt.requests,
					len(plain.Log()))
			}
			rule.Off()
			s.reads("--ca-file", ca, ref)
		})
	}
}
