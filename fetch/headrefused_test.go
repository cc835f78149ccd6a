package fetch

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"slices"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// TestHeadRefused: an image is seen by all that ask for it where the registry refuses HEAD, or
// tells nothing in its answer, and has the manifest for GET.
func TestHeadRefused(t *testing.T) {
	page := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html") }
	silent := func(w http.ResponseWriter) { w.Header().Set("Content-Type", artifact.MediaTypeManifest) }
	refuse := func(code int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(code) }
	}
	for name, answer := range map[string]func(http.ResponseWriter){
		"400": refuse(400), "403": refuse(403), "404": refuse(404), "405": refuse(405),
		"501": refuse(501), "no digest": silent, "a page": page,
	} {
		t.Run(name, func(t *testing.T) {
			f := registrytest.NewServer(t)
			f.Serve(t)
			o := testOptions()
			o.Meta = registrytest.NewCache()
			want := mustOpen(t, f.Ref(t), o).Digest()
			f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead {
					answer(w)
				}
				return r.Method == http.MethodHead
			})
			im := mustOpen(t, f.Ref(t), o)
			if im.Digest() != want {
				t.Errorf("opened %s, want %s", im.Digest(), want)
			}
			if got, err := im.Resolve(context.Background()); err != nil || got != want {
				t.Errorf("the tag names %q, %v, want %s", got, err, want)
			}
			for _, at := range []string{f.Host() + "/a", f.Host() + "/a@" + want} {
				got, err := Exists(context.Background(), registrytest.Ref(t, at), testOptions())
				if err != nil || !got {
					t.Errorf("%s exists: %t, %v", at, got, err)
				}
			}
			gone := registrytest.Ref(t, f.Host()+"/a:none")
			if got, err := Exists(context.Background(), gone, testOptions()); err != nil || got {
				t.Errorf("no tag: exists: %t, %v", got, err)
			}
		})
	}
	for _, code := range []int{401, 429, 500} { // what HEAD says for sure
		f := registrytest.NewServer(t)
		f.Serve(t)
		f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead {
				t.Errorf("%d: %s %s", code, r.Method, r.URL.Path)
			}
			w.WriteHeader(code)
			return true
		})
		if got, err := Exists(context.Background(), f.Ref(t), testOptions()); err == nil || got {
			t.Errorf("%s: exists: %t, %v", fmt.Sprint(code), got, err)
		}
	}
}

// TestSecondOpen: what a tag that was opened before costs, by what the registry makes of HEAD.
func TestSecondOpen(t *testing.T) {
	old, next := registrytest.Layer{Content: []byte("old")}, registrytest.Layer{Content: []byte("new")}
	status := func(code int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(code)
			}
			return r.Method == http.MethodHead
		}
	}
	digest := "GET " + "/v2/a/manifests/" + registrytest.DigestOf(registrytest.OCIManifest(t, next))
	const head, get = "HEAD /v2/a/manifests/latest", "GET /v2/a/manifests/latest"
	tests := []struct {
		name   string
		serve  registrytest.Layer
		script func(int, http.ResponseWriter, *http.Request) bool
		want   []string
	}{
		{"unchanged", old, nil, []string{head}},
		{"changed", next, nil, []string{head, digest}},
		{"no HEAD", old, status(http.StatusMethodNotAllowed), []string{head, get}},
		{"HEAD without a digest", old, status(http.StatusOK), []string{head, get}},
		{"limited", old, status(http.StatusTooManyRequests), []string{head, get}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := registrytest.NewServer(t)
			f.Serve(t, old)
			o := testOptions()
			o.Meta = registrytest.NewCache()
			_ = mustOpen(t, f.Ref(t), o).Close()
			f.Serve(t, tt.serve)
			f.Answer(tt.script)
			f.Forget()
			im := mustOpen(t, f.Ref(t), o)
			var got []string
			for _, r := range f.Requests() {
				got = append(got, r.Method+" "+r.URL.Path)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("asked %q, want %q", got, tt.want)
			}
			if im.Digest() != registrytest.DigestOf(registrytest.OCIManifest(t, tt.serve)) {
				t.Errorf("opened %s", im.Digest())
			}
		})
	}
}
