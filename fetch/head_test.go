package fetch

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// TestSecondOpen: what a tag that was opened before costs, by what the registry makes of HEAD.
func TestSecondOpen(t *testing.T) {
	old, next := part{content: []byte("old")}, part{content: []byte("new")}
	status := func(code int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(code)
			}
			return r.Method == http.MethodHead
		}
	}
	digest := "GET " + "/v2/a/manifests/" + digestOf(makeManifest(t, next))
	const head, get = "HEAD /v2/a/manifests/latest", "GET /v2/a/manifests/latest"
	tests := []struct {
		name   string
		serve  part
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
			f := newFake(t)
			f.serve(t, old)
			o := testOptions()
			o.Meta = newMemMeta()
			_ = mustOpen(t, f.ref(t), o).Close()
			f.serve(t, tt.serve)
			f.do(tt.script)
			f.forget()
			im := mustOpen(t, f.ref(t), o)
			var got []string
			for _, r := range f.asked() {
				got = append(got, r.Method+" "+r.URL.Path)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("asked %q, want %q", got, tt.want)
			}
			if im.Digest() != digestOf(makeManifest(t, tt.serve)) {
				t.Errorf("opened %s", im.Digest())
			}
		})
	}
}

// TestLikely: the first layers, each once and none that is large, can be had before the signature is there; what is not
// as its name says cannot.
func TestLikely(t *testing.T) {
	parts := []part{
		{content: []byte("one")}, {content: noise(3 << 20)}, {content: []byte("one")},
		{content: []byte("a lie"), wire: compress([]byte("other"))},
		{content: []byte("5")}, {content: []byte("6")}, {content: []byte("7")}, {content: []byte("8")}, {content: []byte("ninth")},
	}
	f := newFake(t)
	f.serve(t, parts...)
	o := testOptions()
	calls := 0
	o.Likely = func(blobs []pfimg.Digest, blob func(context.Context, pfimg.Digest, artifact.Sink) error) {
		calls++
		want := []pfimg.Digest{parts[0].logical(), parts[3].logical(), parts[4].logical(), parts[5].logical(), parts[6].logical(), parts[7].logical()}
		if !slices.Equal(blobs, want) {
			t.Errorf("likely are %v, want %v", blobs, want)
		}
		if n := f.count("/v2/a/blobs/*"); n != 0 {
			t.Errorf("%d blobs were asked for before", n)
		}
		for i, d := range blobs {
			var b buffer
			if err := blob(context.Background(), d, &b); (err == nil) != (i != 1) || i != 1 && digestOf(b.Bytes()) != d.String() {
				t.Errorf("blob %d: %q, %v", i, b.Bytes(), err)
			}
		}
	}
	mustOpen(t, f.ref(t), o)
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
}
