package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/sign"
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

// TestLikely: the stored bytes of the first layers, each once and none that is large, are asked for before the
// signature is there, and not again by the Blob that wants them. What is not as its name says is refused as ever.
func TestLikely(t *testing.T) {
	parts := []part{
		{content: []byte("one")}, {content: noise(3 << 20)}, {content: []byte("one")},
		{content: []byte("a lie"), wire: compress([]byte("other"))},
		{content: []byte("5")}, {content: []byte("6")}, {content: []byte("7")}, {content: []byte("8")}, {content: []byte("ninth")},
	}
	want := []pfimg.Digest{parts[0].logical(), parts[3].logical(), parts[4].logical(), parts[5].logical(), parts[6].logical(), parts[7].logical()}
	f := newFake(t)
	f.serve(t, parts...)
	o := testOptions()
	var got []pfimg.Digest
	o.Likely = func(d pfimg.Digest) bool {
		if n := f.count("/v2/a/blobs/*"); n > len(got) {
			t.Errorf("%d blobs were asked for before", n)
		}
		got = append(got, d)
		return d != parts[7].logical()
	}
	im := mustOpen(t, f.ref(t), o)
	if !slices.Equal(got, want) {
		t.Errorf("likely are %v, want %v", got, want)
	}
	for i, p := range parts {
		var b buffer
		err := im.Blob(context.Background(), p.logical(), -1, &b)
		if (err == nil) != (i != 3) || i != 3 && digestOf(b.Bytes()) != p.logical().String() {
			t.Errorf("blob %d: %d bytes, %v", i, b.Len(), err)
		}
	}
	for i, p := range parts { // blob 0 is read twice
		if n, want := f.count(p.blobPath()), map[int]int{0: 2, 2: 2}[i]; n != max(want, 1) {
			t.Errorf("blob %d: asked for %d times", i, n)
		}
	}
}

// TestLikelyUndecoded: before the signature is verified nothing is decoded and nothing cached, no layer is read beyond
// the size in its descriptor, and what no blob wants is forgotten.
func TestLikelyUndecoded(t *testing.T) {
	for _, good := range []bool{true, false} {
		t.Run(fmt.Sprint("good signature ", good), func(t *testing.T) {
			liar := part{content: []byte("endless"), wire: noise(4 << 20), size: 1000}
			parts := []part{{content: []byte("one")}, liar}
			f := newFake(t)
			f.serve(t, parts...)
			if !good {
				_, sig := signedManifest(t)
				bad := bytes.Replace(sig, []byte(`"signature":"`), []byte(`"signature":"0`), 1)
				raw := makeManifest(t, parts...)
				raw = bytes.Replace(raw, []byte(digestOf(sig)), []byte(digestOf(bad)), 1)
				raw = bytes.Replace(raw, fmt.Appendf(nil, `"size":%d`, len(sig)), fmt.Appendf(nil, `"size":%d`, len(bad)), 1)
				f.content["/v2/a/blobs/"+digestOf(bad)] = bad
				f.content["/v2/a/manifests/latest"] = raw
			}
			f.do(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != liar.blobPath() {
					return false
				}
				w.(http.Flusher).Flush() // no length
				_, _ = w.Write(liar.wire)
				return true
			})
			meta := newMemMeta()
			o := testOptions()
			o.Meta = meta
			o.Likely = func(pfimg.Digest) bool { return true }
			im, err := Open(context.Background(), f.ref(t), o)
			if good != (err == nil) || !good && !errors.Is(err, sign.ErrSignature) {
				t.Fatalf("Open: %v", err)
			}
			if want := map[bool]int{true: 3}[good]; len(meta.bytes) != want {
				t.Errorf("%d documents are cached, want %d", len(meta.bytes), want)
			}
			if !good {
				return
			}
			defer im.Close()
			e := im.early.claim(artifact.WireDigest(sha256.Sum256(liar.wire)))
			if <-e.done; e.err != nil || len(e.wire) != 1000 {
				t.Errorf("%d bytes of 1000, %v", len(e.wire), e.err)
			}
			im.DropEarly()
			if len(im.early.layers) != 0 {
				t.Errorf("%d layers are left", len(im.early.layers))
			}
		})
	}
}
