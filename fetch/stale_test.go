package fetch

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/sign"
)

// TestMetaSavesRequests opens an image again: by tag only the manifest is asked for, by digest
// nothing.
func TestMetaSavesRequests(t *testing.T) {
	f := fixtureFake(t, "many")
	o := testOptions()
	o.Meta = registrytest.NewCache()
	first := mustOpen(t, f.Ref(t), o)
	mustOpen(t, f.Ref(t), o)
	if n := f.Count("*"); n != 4 {
		t.Errorf("%d requests for two mounts by tag, want 4", n)
	}
	im := mustOpen(t, registrytest.Ref(t, f.Host()+"/a@"+first.Digest()), o)
	if n := f.Count("*"); n != 4 || im.Stale() {
		t.Errorf("%d requests after one more by digest, want 4; stale %v", n, im.Stale())
	}
	rec, err := o.Meta.Get(f.Ref(t).String())
	if err != nil || !strings.Contains(string(rec), first.Digest()) {
		t.Errorf("the record is %q, %v", rec, err)
	}
}

func TestOffline(t *testing.T) {
	f := fixtureFake(t, "minimal")
	o := testOptions()
	o.Meta = registrytest.NewCache()
	offline := o
	offline.Registry.Offline = true
	if _, err := Open(context.Background(), f.Ref(t), offline); !errors.Is(err, registry.ErrOffline) {
		t.Errorf("nothing cached: got %v, want ErrOffline", err)
	}
	first := mustOpen(t, f.Ref(t), o)
	n := f.Count("*")
	for _, image := range []ref.Ref{f.Ref(t), registrytest.Ref(t, f.Host()+"/a@"+first.Digest())} {
		im := mustOpen(t, image, offline)
		if !im.Stale() || im.Digest() != first.Digest() ||
			!strings.Contains(strings.Join(im.Warnings(), " "), "offline") {
			t.Errorf("%s: stale %v, digest %s, warnings %q", image, im.Stale(), im.Digest(), im.Warnings())
		}
		if err := im.Blob(context.Background(), im.Manifest().TopLevel()[0].Digest, -1,
			&registrytest.Buffer{}); !errors.Is(err, registry.ErrOffline) {
			t.Errorf("%s: a blob: got %v, want ErrOffline", image, err)
		}
	}
	if f.Count("*") != n {
		t.Errorf("%d requests while offline", f.Count("*")-n)
	}
	offline.Policy.Require = true
	if _, err := Open(context.Background(), f.Ref(t), offline); !errors.Is(err, sign.ErrKey) {
		t.Errorf("another policy: got %v, want ErrKey", err)
	}
}

// TestStale opens from the cache exactly when the registry does not answer.
func TestStale(t *testing.T) {
	f := fixtureFake(t, "minimal")
	o := testOptions()
	o.Meta = registrytest.NewCache()
	mustOpen(t, f.Ref(t), o)
	status := 0
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if status != 0 {
			w.WriteHeader(status)
		}
		return status != 0
	})
	for _, tt := range []struct {
		status int
		want   error // nil: stale
	}{{503, nil}, {500, nil}, {401, registry.ErrDenied}, {403, registry.ErrDenied}, {404,
		artifact.ErrNotFound}, {429, registry.ErrRegistry}, {501, registry.ErrRegistry}} {
		status = tt.status
		im, err := Open(context.Background(), f.Ref(t), o)
		if !errors.Is(err, tt.want) {
			t.Errorf("%d: got %v, want %v", tt.status, err, tt.want)
		}
		if err == nil {
			if !im.Stale() {
				t.Errorf("%d: not stale", tt.status)
			}
			_ = im.Close()
		}
	}
	status = 0
	url := f.Ref(t)
	f.Close()
	im := mustOpen(t, url, o)
	if w := strings.Join(im.Warnings(), " "); !im.Stale() || !strings.Contains(w, "refused") {
		t.Errorf("down: stale %v, warnings %q", im.Stale(), w)
	}
	if err := im.Blob(context.Background(), im.Manifest().TopLevel()[0].Digest, -1,
		&registrytest.Buffer{}); !errors.Is(err, registry.ErrRegistry) {
		t.Errorf("a blob of a stale image: got %v, want ErrRegistry (it was asked for)", err)
	}
	o.Meta = registrytest.NewCache()
	if _, err := Open(context.Background(), url, o); !errors.Is(err, registry.ErrRegistry) ||
		!strings.Contains(err.Error(), "refused") {
		t.Errorf("down and no record: got %v", err)
	}
}
