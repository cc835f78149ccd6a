package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/sign"
)

func fixtureFake(t *testing.T, tag string) *registrytest.Server {
	t.Helper()
	f := registrytest.NewServer(t)
	im := mustOpen(t, registrytest.Ref(t, "oci-layout:"+registrytest.Fixtures+"/layout:"+tag),
		Options{Policy: sign.Policy{Insecure: true}})
	load := func(d string) []byte {
		return registrytest.Fixture(t, "layout", "blobs", "sha256", strings.TrimPrefix(d, "sha256:"))
	}
	f.Content["/v2/a/manifests/latest"] = load(im.Digest())
	f.Content["/v2/a/manifests/"+im.Digest()] = load(im.Digest())
	oci := im.reader.Root().OCI
	for _, l := range oci.Named {
		f.Content["/v2/a/blobs/"+l.Wire.String()] = load(l.Wire.String())
	}
	for _, d := range []artifact.Descriptor{oci.Config, oci.Signatures[0]} {
		f.Content["/v2/a/blobs/"+d.Wire.String()] = load(d.Wire.String())
	}
	return f
}

func TestRegistry(t *testing.T) {
	f := fixtureFake(t, "basic")
	im := mustOpen(t, f.Ref(t), testOptions())
	if n := f.Count("*"); n != 3 {
		t.Errorf("%d requests to open, want 3: manifest, config, signature", n)
	}
	if n := readAll(t, im); n < 80 {
		t.Errorf("only %d blobs", n)
	}
	if im.Stale() || im.Digest() != registrytest.DigestOf(f.Content["/v2/a/manifests/latest"]) {
		t.Errorf("stale %v, digest %s", im.Stale(), im.Digest())
	}
	if got := im.Fetched(); got.Requests != int64(f.Count("*")) {
		t.Errorf("traffic: got %+v, the registry saw %d requests", got, f.Count("*"))
	}
	for _, r := range f.Requests() {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("Accept-Encoding: got %q", got)
		}
		if got := r.Header["User-Agent"]; len(got) != 1 || got[0] != "pfmount/dev" {
			t.Errorf("User-Agent: got %q", got)
		}
	}
	if got := f.Requests()[0].Header.Get("Accept"); !strings.Contains(got,
		artifact.MediaTypeIndex) || !strings.Contains(got, artifact.MediaTypeDocker) {
		t.Errorf("Accept: got %q", got)
	}
}

// TestManifestAnswers asserts what Open says to answers that are no image.
func TestManifestAnswers(t *testing.T) {
	body := func(kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, text)
		}
	}
	status := func(code int, words string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			fmt.Fprint(w, words)
		}
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   error
		text   string
		max    int // requests
	}{
		{"web page", body("text/html; charset=utf-8", "<html>"), registry.ErrRegistry, "web page", 1},
		{"index", body(artifact.MediaTypeIndex, `{"schemaVersion":2,"manifests":[]}`),
			pfimg.ErrUnsupported, "index", 1},
		{"docker image", body(artifact.MediaTypeDocker,
			`{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json"},"layers":[]}`), pfimg.ErrUnsupported, "docker image", 1},
		{"not JSON", body(artifact.MediaTypeManifest, `hello`), pfimg.ErrIntegrity, "JSON", 1},
		{"401", status(401, ``), registry.ErrDenied, "no credentials", 1},
		{"403 with words", status(403,
			`{"errors":[{"code":"DENIED","message":"not \u001b[31m you"}]}`), registry.ErrDenied,
			`DENIED: not \x1b[31m you`, 1},
		{"404", status(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`), artifact.ErrNotFound, "MANIFEST_UNKNOWN", 1},
		{"501", status(501, ``), registry.ErrRegistry, "501", 1},
		{"429 for ever", status(429,
			`{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`), registry.ErrRegistry,
			"slow down", 5},
		{"500 for ever", status(500, ``), registry.ErrRegistry, "after 5 tries", 5},
		{"gzip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "x")
		}, registry.ErrRegistry, "Content-Encoding gzip", 1},
		{"redirect to no URL", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://[::1/?SECRET")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, registry.ErrRegistry, "no address of HTTP", 1},
		{"redirect to another protocol", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "ftp://x/?SECRET")
			w.WriteHeader(http.StatusFound)
		}, registry.ErrRegistry, "no address of HTTP", 1},
		{"redirect to no host", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http:///x?SECRET")
			w.WriteHeader(http.StatusFound)
		}, registry.ErrRegistry, "no address of HTTP", 1},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, registry.ErrRegistry, "redirects", 6},
		{"endless words", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(403)
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, registry.ErrDenied, "403", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := fixtureFake(t, "minimal")
			f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				tt.answer(w, r)
				return true
			})
			_, err := Open(context.Background(), f.Ref(t), testOptions())
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) ||
				!strings.Contains(err.Error(), f.Host()) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
			}
			if n := f.Count("*"); n > tt.max {
				t.Errorf("%d requests, want at most %d", n, tt.max)
			}
		})
	}
}

// TestManifestTooLong is case 44: an endless manifest, and one that announces 20 GB.
func TestManifestTooLong(t *testing.T) {
	for _, tt := range []struct {
		name   string
		length string
		digest string
	}{{"endless", "", ""}, {"endless with digest", "", "sha256:" + hexA}, {"20 GB", "20000000000",
		""}, {"20 GB with digest", "20000000000", "sha256:" + hexA}} {
		t.Run(tt.name, func(t *testing.T) {
			f := registrytest.NewServer(t)
			f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if tt.length != "" {
					w.Header().Set("Content-Length", tt.length)
				}
				if tt.digest != "" {
					w.Header().Set("Docker-Content-Digest", tt.digest)
				}
				for b := bytes.Repeat([]byte(" "), 1<<20); ; {
					if _, err := w.Write(b); err != nil {
						return true
					}
				}
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Open(context.Background(), f.Ref(t), testOptions())
			runtime.ReadMemStats(&after)
			if !errors.Is(err, pfimg.ErrIntegrity) || !strings.Contains(err.Error(), "longer than") {
				t.Errorf("got %v", err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 140<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
			if n := f.Count("*"); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

// TestManifestCut is case 18 for the manifest: a cut body is asked for again, with and without a
// digest header.
func TestManifestCut(t *testing.T) {
	for _, digest := range []bool{true, false} {
		for _, length := range []bool{true, false} {
			for _, rst := range []bool{true, false} {
				f := fixtureFake(t, "many")
				raw := f.Content["/v2/a/manifests/latest"]
				cuts := 0
				f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
					if !strings.Contains(r.URL.Path, "/manifests/") {
						return false
					}
					if cuts++; cuts <= 2 {
						n := -1
						if length {
							n = len(raw)
						}
						registrytest.Cut(t, w, raw[:len(raw)*cuts/3], n, rst)
						return true
					}
					if digest {
						return false
					}
					_, _ = w.Write(raw)
					return true
				})
				im, err := Open(context.Background(), f.Ref(t), testOptions())
				switch {
				case err == nil:
					if im.Facts().Layers != 1509 {
						t.Errorf("%d layers", im.Facts().Layers)
					}
					_ = im.Close()
				case length || rst || !errors.Is(err, pfimg.ErrIntegrity):
					// Without length, digest and reset a cut document cannot be told from a bad
					// one.
					t.Errorf("digest %v, length %v, rst %v: %v", digest, length, rst, err)
				}
			}
		}
	}
}

func TestSignatureLayers(t *testing.T) {
	pf, sig := registrytest.SignedManifest(t)
	open := func(t *testing.T, policy sign.Policy, parts string) error {
		f := registrytest.NewServer(t)
		raw := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[%s]}`, artifact.MediaTypeConfig, registrytest.DigestOf(pf), len(pf), parts)
		f.Content["/v2/a/manifests/latest"] = []byte(raw)
		for _, b := range [][]byte{pf, sig} {
			f.Content["/v2/a/blobs/"+registrytest.DigestOf(b)] = b
		}
		o := testOptions()
		o.Policy = policy
		im, err := Open(context.Background(), f.Ref(t), o)
		if err == nil {
			_ = im.Close()
		}
		return err
	}
	one := func(b []byte, size int) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, artifact.MediaTypeSignature,
			registrytest.DigestOf(b), size)
	}
	tests := []struct {
		name, layers string
		policy       sign.Policy
		want         error
		text         string
	}{
		{"one", one(sig, len(sig)), sign.Policy{}, nil, ""},
		{"none", "", sign.Policy{}, sign.ErrSignature, "no signature"},
		{"none, insecure", "", sign.Policy{Insecure: true}, nil, ""},
		{"two", one(sig, len(sig)) + "," + one(pf, len(pf)), sign.Policy{}, pfimg.ErrIntegrity,
			"two signature"},
		{"two, insecure", one(sig, len(sig)) + "," + one(pf, len(pf)), sign.Policy{Insecure: true},
			pfimg.ErrIntegrity, "two signature"},
		{"not one", one(pf, len(pf)), sign.Policy{}, sign.ErrSignature, ""},
		{"2 MiB", one(sig, 2<<20), sign.Policy{}, pfimg.ErrIntegrity, "limit"},
		{"of another size", one(sig, len(sig)+1), sign.Policy{}, pfimg.ErrIntegrity, "bytes"},
		{"missing", one([]byte("x"), 1), sign.Policy{}, artifact.ErrMissing, "404"},
		{"other key", one(sig, len(sig)), sign.Policy{Keys: []sign.Key{sign.Key("k")}},
			sign.ErrSignature, ""},
		{"key required", one(sig, len(sig)), sign.Policy{Require: true}, sign.ErrKey, ""},
	}
	for _, tt := range tests {
		if err := open(t, tt.policy, tt.layers); !errors.Is(err, tt.want) ||
			tt.want != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
		}
	}
}

// TestTamperedManifest asks by digest and by a header that lies.
func TestTamperedManifest(t *testing.T) {
	f := fixtureFake(t, "minimal")
	digest := registrytest.DigestOf(f.Content["/v2/a/manifests/latest"])
	other := registrytest.OCIManifest(t, registrytest.Layer{Content: []byte("x")})
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Docker-Content-Digest", digest)
		_, _ = w.Write(other)
		return true
	})
	for _, name := range []string{f.Host() + "/a", f.Host() + "/a@" + digest} {
		_, err := Open(context.Background(), registrytest.Ref(t, name), testOptions())
		if !errors.Is(err, pfimg.ErrIntegrity) || !strings.Contains(err.Error(), digest) {
			t.Errorf("%s: got %v, want ErrIntegrity that names the digest", name, err)
		}
	}
	last := f.Requests()[len(f.Requests())-1]
	if last.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("the second try went through caches: %v", last.Header)
	}
}

func TestOpenIsCancelled(t *testing.T) {
	release := make(chan struct{})
	f := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer f.Close()
	defer close(release)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	o := testOptions()
	o.Registry.StallTimeout = time.Minute
	_, err := Open(ctx, registrytest.Ref(t, strings.TrimPrefix(f.URL, "http://")+"/a"), o)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) >= o.Registry.StallTimeout {
		t.Errorf("got %v after %s", err, time.Since(start))
	}
}
