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
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/sign"
)

// TestPreload: the stored bytes of the first layers, each once and none that is large, are asked
// for before the signature is there, and not again by the Blob that wants them. What is not as its
// name says is refused as ever.
func TestPreload(t *testing.T) {
	parts := []registrytest.Layer{
		{Content: []byte("one")}, {Content: registrytest.Noise(3 << 20)}, {Content: []byte("one")},
		{Content: []byte("a lie"), Wire: registrytest.Compress([]byte("other"))},
		{Content: []byte("5")}, {Content: []byte("6")}, {Content: []byte("7")},
		{Content: []byte("8")}, {Content: []byte("ninth")},
	}
	want := []pfimg.Digest{parts[0].Logical(), parts[3].Logical(), parts[4].Logical(),
		parts[5].Logical(), parts[6].Logical(), parts[7].Logical()}
	f := registrytest.NewServer(t)
	f.Serve(t, parts...)
	o := testOptions()
	var got []pfimg.Digest
	o.Preload = func(d pfimg.Digest) bool {
		if n := f.Count("/v2/a/blobs/*"); n > len(got) {
			t.Errorf("%d blobs were asked for before", n)
		}
		got = append(got, d)
		return d != parts[7].Logical()
	}
	im := mustOpen(t, f.Ref(t), o)
	if !slices.Equal(got, want) {
		t.Errorf("preloaded are %v, want %v", got, want)
	}
	for i, p := range parts {
		var b registrytest.Buffer
		err := im.Blob(context.Background(), p.Logical(), -1, &b)
		if (err == nil) != (i != 3) || i != 3 && registrytest.DigestOf(b.Bytes()) != p.Logical().String() {
			t.Errorf("blob %d: %d bytes, %v", i, b.Len(), err)
		}
	}
	for i, p := range parts { // blob 0 is read twice
		if n, want := f.Count(p.BlobPath()), map[int]int{0: 2, 2: 2}[i]; n != max(want, 1) {
			t.Errorf("blob %d: asked for %d times", i, n)
		}
	}
}

// TestPreloadUndecoded: before the signature is verified nothing is decoded and nothing cached, no
// layer is read beyond the size in its descriptor, and what no blob wants is forgotten.
func TestPreloadUndecoded(t *testing.T) {
	for _, good := range []bool{true, false} {
		t.Run(fmt.Sprint("good signature ", good), func(t *testing.T) {
			liar := registrytest.Layer{Content: []byte("endless"),
				Wire: registrytest.Noise(4 << 20), Size: 1000}
			parts := []registrytest.Layer{{Content: []byte("one")}, liar}
			f := registrytest.NewServer(t)
			f.Serve(t, parts...)
			if !good {
				_, sig := registrytest.SignedManifest(t)
				bad := bytes.Replace(sig, []byte(`"signature":"`), []byte(`"signature":"0`), 1)
				raw := registrytest.OCIManifest(t, parts...)
				raw = bytes.Replace(raw, []byte(registrytest.DigestOf(sig)),
					[]byte(registrytest.DigestOf(bad)), 1)
				raw = bytes.Replace(raw, fmt.Appendf(nil, `"size":%d`, len(sig)),
					fmt.Appendf(nil, `"size":%d`, len(bad)), 1)
				f.Content["/v2/a/blobs/"+registrytest.DigestOf(bad)] = bad
				f.Content["/v2/a/manifests/latest"] = raw
			}
			f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != liar.BlobPath() {
					return false
				}
				w.(http.Flusher).Flush() // no length
				_, _ = w.Write(liar.Wire)
				return true
			})
			meta := registrytest.NewCache()
			o := testOptions()
			o.Meta = meta
			o.Preload = func(pfimg.Digest) bool { return true }
			im, err := Open(context.Background(), f.Ref(t), o)
			if good != (err == nil) || !good && !errors.Is(err, sign.ErrSignature) {
				t.Fatalf("Open: %v", err)
			}
			if want := map[bool]int{true: 3}[good]; len(meta.Contents) != want {
				t.Errorf("%d documents are cached, want %d", len(meta.Contents), want)
			}
			if !good {
				return
			}
			defer im.Close()
			e := im.early.claim(artifact.WireDigest(sha256.Sum256(liar.Wire)))
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
