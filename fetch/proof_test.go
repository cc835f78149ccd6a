package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// answerTo makes an answer of a sinkRegistry to one kind of request.
func answerTo(method, part string, answer http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return false
		}
		answer(w, r)
		return true
	}
}

// claims answers a write without doing it; header alternates names and values.
func claims(code int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

const (
	loginPage = "\n<!DOCTYPE html><html><title>Log in</title></html>"
	htmlType  = "text/html; charset=utf-8"
)

// TestPushUnproved: what only looks like a success is an error that says what was seen.
func TestPushUnproved(t *testing.T) {
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal")
	other := registrytest.DigestOf([]byte("other"))
	page := claims(200, loginPage, "Content-Type", htmlType)
	moved := func(code int) http.HandlerFunc { return claims(code, "", "Location", "/login?next=SECRET") }
	tests := []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request) bool
		from   string // repository to mount from
		says   string
	}{
		{"manifest, 301", answerTo("PUT", "manifests", moved(301)), "", "a redirect (301) to"},
		{"manifest, 302", answerTo("PUT", "manifests", moved(302)), "", "makes PUT a GET"},
		{"manifest, 303", answerTo("PUT", "manifests", moved(303)), "", "a redirect (303) to"},
		{"blob, 301", answerTo("PUT", "uploads", moved(301)), "", "makes PUT a GET"},
		{"upload, 302", answerTo("POST", "uploads", moved(302)), "", "makes POST a GET"},
		{"mount, 302", answerTo("POST", "uploads", moved(302)), "b", "makes POST a GET"},
		{"manifest, page", answerTo("PUT", "manifests", page), "", "web page"},
		{"blob, page", answerTo("PUT", "uploads", page), "", "web page"},
		{"upload, page", answerTo("POST", "uploads",
			claims(202, loginPage, "Content-Type", htmlType, "Location", "/x")), "", "web page"},
		{"mount, page", answerTo("POST", "uploads",
			claims(201, loginPage, "Content-Type", htmlType)), "b", "web page"},
		{"all, page", func(w http.ResponseWriter, r *http.Request) bool { page(w, r); return true },
			"", "web page"},
		{"manifest, another digest", answerTo("PUT", "manifests",
			claims(201, "", "Docker-Content-Digest", other)), "",
			"Docker-Content-Digest names another digest, " + other},
		{"manifest, another place", answerTo("PUT", "manifests",
			claims(201, "", "Location", "https://x/v2/a/manifests/"+other+"?SECRET")), "",
			"Location names another digest"},
		{"blob, another digest", answerTo("PUT", "uploads",
			claims(201, "", "Docker-Content-Digest", other)), "", other},
		{"blob, another place", answerTo("PUT", "uploads",
			claims(201, "", "Location", "/v2/a/blobs/sha256%3A"+other[7:])), "", other},
		{"mount, another digest", answerTo("POST", "uploads",
			claims(201, "", "Docker-Content-Digest", other)), "b", other},
		{"manifest not stored", answerTo("PUT", "manifests", claims(201, "")), "", "404 Not Found"},
		{"HEAD names another", answerTo("HEAD", "manifests",
			claims(200, "", "Docker-Content-Digest", other)), "", "another manifest, " + other},
		{"GET has another", func(w http.ResponseWriter, r *http.Request) bool {
			return answerTo("HEAD", "manifests", claims(405, ""))(w, r) ||
				answerTo("GET", "manifests", claims(200, "other"))(w, r)
		}, "", "another manifest, " + other},
		{"reads are pages", func(w http.ResponseWriter, r *http.Request) bool {
			return answerTo("HEAD", "manifests", page)(w, r) || answerTo("GET", "manifests", page)(w, r)
		}, "", "web page"},
		{"reads are refused", func(w http.ResponseWriter, r *http.Request) bool {
			return answerTo("HEAD", "manifests", claims(403, ""))(w, r) ||
				answerTo("GET", "manifests", claims(403, ""))(w, r)
		}, "", "may not be there"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.NewDestination(t)
			s.Answer = tt.answer
			o := PushOptions{Registry: testOptions().Registry}
			if tt.from != "" {
				o.MountFrom = []string{tt.from}
			}
			_, err := Push(context.Background(), c, s.Ref(t), o)
			if err == nil || !strings.Contains(err.Error(), tt.says) ||
				strings.Contains(err.Error(), "SECRET") {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if !errors.Is(err, registry.ErrRegistry) && !errors.Is(err, registry.ErrDenied) ||
				errors.Is(err, artifact.ErrNotFound) {
				t.Errorf("got %v, want ErrRegistry", err)
			}
			if n := s.Count("GET blob"); n > 0 {
				t.Errorf("%d requests went on as GET", n)
			}
		})
	}
}

// TestPushProved: registries that say little, or say it late, still prove what they have, with few
// requests.
func TestPushProved(t *testing.T) {
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal")
	failed, late := 0, 0
	for _, tt := range []struct {
		name       string
		answer     func(http.ResponseWriter, *http.Request) bool
		heads, get int
	}{
		{"HEAD", nil, 1, 0},
		{"HEAD is not allowed", answerTo("HEAD", "manifests", claims(405, "")), 1, 1},
		{"HEAD is refused", answerTo("HEAD", "manifests", claims(403, "")), 1, 1},
		{"HEAD finds nothing", answerTo("HEAD", "manifests", claims(404, "")), 1, 1},
		{"HEAD tells no digest", answerTo("HEAD", "manifests", claims(200, "")), 1, 1},
		{"HEAD fails once", func(w http.ResponseWriter, r *http.Request) bool {
			return failOnce(&failed, w, r)
		}, 2, 0},
		{"late", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") && r.Method != http.MethodPut {
				if late++; late <= 4 { // HEAD and GET, twice
					w.WriteHeader(http.StatusNotFound)
					return true
				}
			}
			return false
		}, 3, 2},
	} {
		s := registrytest.NewDestination(t)
		s.Answer = tt.answer
		if _, err := push(t, s, c, ""); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if s.Count("PUT manifest") != 1 || s.Count("HEAD manifest") != tt.heads ||
			s.Count("GET manifest") != tt.get {
			t.Errorf("%s: %v, want %d HEAD and %d GET", tt.name, s.Seen, tt.heads, tt.get)
		}
	}
}

// failOnce answers the first HEAD of a manifest with 503.
func failOnce(n *int, w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodHead || !strings.Contains(r.URL.Path, "/manifests/") {
		return false
	}
	if *n++; *n > 1 {
		return false
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

// TestPushToQuay: its answers to writes are text/html, with the word OK or empty.
func TestPushToQuay(t *testing.T) {
	s := registrytest.NewDestination(t)
	s.Quay = true
	if _, err := push(t, s, openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal"),
		""); err != nil {
		t.Error(err)
	}
}

// TestThereIsThisBlob: only an answer about the blob spares its upload.
func TestThereIsThisBlob(t *testing.T) {
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal")
	for name, header := range map[string][]string{
		"page":    {"Content-Type", htmlType},
		"another": {"Docker-Content-Digest", registrytest.DigestOf([]byte("other"))},
	} {
		s := registrytest.NewDestination(t)
		s.Answer = answerTo("HEAD", "blobs", claims(200, "", header...))
		if r, err := push(t, s, c, ""); err != nil || r.Copied != r.Blobs || len(s.Blobs) != r.Blobs {
			t.Errorf("%s: %+v, %v, %d blobs there", name, r, err, len(s.Blobs))
		}
	}
}
