package fetch

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// TestResolve asks where a tag points, by headers, by the manifest where the headers do not tell,
// after a move and when the registry fails; and leaves images that no tag names alone.
func TestResolve(t *testing.T) {
	f := fixtureFake(t, "minimal")
	im := mustOpen(t, f.Ref(t), testOptions())
	ctx := context.Background()
	for name, script := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"head": func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodHead {
				t.Errorf("%s %s, want HEAD", r.Method, r.URL.Path)
			}
			return false
		},
		"no head": func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return r.Method == http.MethodHead
		},
		"no digest": func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.Header().Set("Content-Type", artifact.MediaTypeManifest)
			}
			return r.Method == http.MethodHead
		},
	} {
		f.Answer(script)
		if got, err := im.Resolve(ctx); err != nil || got != im.Digest() {
			t.Errorf("%s: got %q, %v, want %s", name, got, err, im.Digest())
		}
	}
	other := fixtureFake(t, "basic")
	f.Mu.Lock()
	for path, body := range other.Content {
		if strings.HasSuffix(path, "/manifests/"+f.Ref(t).Tag()) {
			f.Content[path] = body
		}
	}
	f.Mu.Unlock()
	f.Answer(nil)
	if got, err := im.Resolve(ctx); err != nil || got != mustOpen(t, other.Ref(t), testOptions()).Digest() {
		t.Errorf("moved: got %q, %v", got, err)
	}
	f.Answer(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	if got, err := im.Resolve(ctx); !errors.Is(err, artifact.ErrNotFound) || got != "" {
		t.Errorf("tag gone: got %q, %v, want ErrNotFound", got, err)
	}
	f.Answer(nil)
	pinned := mustOpen(t, registrytest.Ref(t, f.Host()+"/a@"+im.Digest()), testOptions())
	n := f.Count("*")
	if got, err := pinned.Resolve(ctx); err != nil || got != "" || f.Count("*") != n {
		t.Errorf("by digest: got %q, %v and %d requests", got, err, f.Count("*")-n)
	}
	if err := im.Close(); err != nil {
		t.Error(err)
	}
	if _, err := im.Resolve(ctx); !errors.Is(err, artifact.ErrClosed) {
		t.Errorf("closed: got %v, want ErrClosed", err)
	}
}

// TestResolveLayout asks a layout on disk.
func TestResolveLayout(t *testing.T) {
	image := registrytest.Ref(t, "oci-layout:"+registrytest.Fixtures+"/layout:basic")
	im := mustOpen(t, image, testOptions())
	if got, err := im.Resolve(context.Background()); err != nil || got != im.Digest() {
		t.Errorf("got %q, %v, want %s", got, err, im.Digest())
	}
}
