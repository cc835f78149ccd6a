package registrytest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
)

// Destination is a registry that takes uploads and keeps them in memory.
type Destination struct {
	*httptest.Server
	// Answer answers a request; false leaves it to the registry.
	Answer func(w http.ResponseWriter, r *http.Request) bool
	Quay   bool // answers to writes are of type text/html

	Mu        sync.Mutex // guards the fields below
	Blobs     map[string][]byte
	Manifests map[string][]byte
	Seen      map[string]int // by method and kind
	inFlight  int
	Peak      int
	Query     string // of the last PUT
}

// NewDestination starts a registry that stops when the test ends.
func NewDestination(t *testing.T) *Destination {
	s := &Destination{
		Blobs: map[string][]byte{}, Manifests: map[string][]byte{}, Seen: map[string]int{},
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// Ref names the image to push.
func (s *Destination) Ref(t *testing.T) ref.Ref {
	return Ref(t, strings.TrimPrefix(s.URL, "http://")+"/a:v1")
}

// Count returns how many requests had a method and kind, such as "HEAD blob".
func (s *Destination) Count(what string) int {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return s.Seen[what]
}

func (s *Destination) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := "blob"
	switch {
	case strings.Contains(r.URL.Path, "/uploads/"):
		kind = "upload"
	case strings.Contains(r.URL.Path, "/manifests/"):
		kind = "manifest"
	}
	s.Mu.Lock()
	s.Seen[r.Method+" "+kind]++
	s.inFlight++
	s.Peak = max(s.Peak, s.inFlight)
	s.Mu.Unlock()
	defer func() { s.Mu.Lock(); s.inFlight--; s.Mu.Unlock() }()
	if s.Answer != nil && s.Answer(w, r) {
		return
	}
	name := filepath.Base(r.URL.Path)
	if s.Quay {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
	}
	switch r.Method + " " + kind {
	case "HEAD blob":
		s.Mu.Lock()
		b, ok := s.Blobs[name]
		s.Mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	case "HEAD manifest", "GET manifest":
		s.Mu.Lock()
		b, ok := s.Manifests[name]
		for _, m := range s.Manifests {
			if DigestOf(m) == name {
				b, ok = m, true
			}
		}
		s.Mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", artifact.MediaTypeManifest)
		w.Header().Set("Docker-Content-Digest", DigestOf(b))
		_, _ = w.Write(b)
	case "POST upload":
		w.Header().Set("Location", "/v2/a/blobs/uploads/1?state=a%2Fb%3D")
		w.WriteHeader(http.StatusAccepted)
	case "PUT upload", "PUT manifest":
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.Mu.Lock()
		defer s.Mu.Unlock()
		if kind == "manifest" {
			s.Manifests[name] = b
		} else {
			s.Blobs[r.URL.Query().Get("digest")], s.Query = b, r.URL.RawQuery
		}
		if s.Quay {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "OK")
			return
		}
		w.WriteHeader(http.StatusNoContent) // any 2xx will do
	}
}
