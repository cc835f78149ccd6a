package registry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"fmt"

	"errors"
	"slices"
	"strings"
	"sync"

	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// TestPushSlowUpload has a server that takes its time, but takes bytes: that is no stall.
func TestPushSlowUpload(t *testing.T) {
	t.Parallel() // it waits
	s := registrytest.NewDestination(t)
	s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || r.ContentLength < 4<<20 {
			return false
		}
		buf := make([]byte, 2<<20)
		for {
			time.Sleep(time.Second)
			if _, err := io.ReadFull(r.Body, buf); err != nil {
				break
			}
		}
		w.WriteHeader(http.StatusCreated)
		return true
	}
	o := quickOptions()
	o.StallTimeout = 10 * time.Second
	o = o.WithDefaults()
	sent := new(progress)
	p, err := NewUploader(s.Ref(t), o, nil, sent)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	body := bytes.Repeat([]byte("x"), 24<<20)
	u := Blob{What: "blob", Digest: artifact.DigestOf(body), Size: int64(len(body)),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(body)), nil
		}}
	if err := p.Upload(context.Background(), u); err != nil {
		t.Errorf("a slow upload: %v", err)
	}
	if n := sent.sent.Load(); n != int64(len(body)) {
		t.Errorf("%d bytes counted of %d", n, len(body))
	}
}

func TestNamedDigest(t *testing.T) {
	d := artifact.DigestOf([]byte("x"))
	for value, want := range map[string]bool{
		d.String(): true, "/v2/a/blobs/" + d.String(): true,
		"https://h/v2/a/manifests/" + d.String() + "?x=1": true,
		"/v2/a/blobs/sha256%3A" + d.Hex():                 true, "v2/a/blobs/" + d.String(): true,
		"": false, "/v2/a/manifests/v1": false, "sha256:12": false, "sha512:" + d.Hex() + d.Hex(): false,
		"/v2/a/blobs/uploads/" + d.Hex(): false, "http://[::1/": false, "/" + d.String() + "/data": false,
	} {
		got, ok := namedDigest(http.Header{"Location": {value}}, "Location")
		if ok != want || ok && got != d {
			t.Errorf("%q: got %s, %t, want %t", value, fmt.Sprint(got), ok, want)
		}
	}
}

func TestMountFrom(t *testing.T) {
	dst := registrytest.Ref(t, "reg.example/team/app:v1")
	for _, tt := range []struct {
		source string
		names  []string
		want   []string
		fails  bool
	}{
		{source: "oci-layout:x"},
		{source: "oci-layout:x", names: []string{"team/base"}, want: []string{"team/base"}},
		{source: "oci-layout:x", names: []string{"reg.example/team/base", "team/base", "a"},
			want: []string{"team/base", "a"}},
		{source: "oci-layout:x", names: []string{"team/app"}},
		{source: "reg.example/z/source:v1", names: []string{"a"}, want: []string{"z/source", "a"}},
		{source: "other.example/z/source:v1"},
		{source: "oci-layout:x", names: []string{"Team/Base"}, fails: true},
		{source: "oci-layout:x", names: []string{""}, fails: true},
		{source: "oci-layout:x", names: []string{"a?from=b"}, fails: true},
		{source: "oci-layout:x", names: []string{"other.example/a/b"}, fails: true},
		{source: "oci-layout:x", names: []string{"a:v1"}, fails: true},
	} {
		got, err := MountFrom(dst, registrytest.Ref(t, tt.source), tt.names)
		if tt.fails != errors.Is(err, ref.ErrInvalid) || err == nil && !slices.Equal(got, tt.want) {
			t.Errorf("%s, %q: got %v, %v, want %q", tt.source, tt.names, got, err, tt.want)
		}
	}
}

// TestPushRenewsToken has the token end between POST and PUT: the body goes again, whole, under a
// new one, and the mount from another repository asks for the right to read there.
func TestPushRenewsToken(t *testing.T) {
	s := registrytest.NewDestination(t)
	var mu sync.Mutex
	valid, tokens := "", 0
	var scopes []string
	puts := map[string][]string{} // tokens of the PUTs, by query
	s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			tokens++
			valid = fmt.Sprintf("token-%d", tokens)
			scopes = append(scopes, r.URL.Query()["scope"]...)
			fmt.Fprintf(w, `{"token":%q,"expires_in":300}`, valid)
			return true
		}
		got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		upload := r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/")
		if upload {
			puts[r.URL.RawQuery] = append(puts[r.URL.RawQuery], got)
			if len(puts[r.URL.RawQuery]) == 1 {
				valid = "none" // it ended just now
			}
		}
		if got == "" || got != valid {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	p, sent := uploaderTo(t, s, "base")
	blob := []byte(strings.Repeat("0123456789", 100_000))
	if err := p.Upload(context.Background(), bytesUpload(blob)); err != nil {
		t.Fatal(err)
	}
	if got := s.Blobs[registrytest.DigestOf(blob)]; string(got) != string(blob) {
		t.Errorf("%d bytes arrived of %d", len(got), len(blob))
	}
	for query, used := range puts {
		if len(used) != 2 || used[0] == used[1] {
			t.Errorf("PUT %s with %q, want two tokens", query, used)
		}
	}
	if !slices.ContainsFunc(scopes,
		func(s string) bool { return strings.Contains(s, "repository:base:pull") }) {
		t.Errorf("scopes %q, want one to read base", scopes)
	}
	if n := sent.sent.Load(); n != int64(len(blob)) {
		t.Errorf("%d bytes counted of %d", n, len(blob))
	}
}

// progress counts what an uploader tells.
type progress struct{ sent, copied, copiedBytes, skipped atomic.Int64 }

func (p *progress) Stored(n int64) { p.sent.Add(n) }

func (p *progress) Copied(size int64) { p.copied.Add(1); p.copiedBytes.Add(size) }

func (p *progress) Skipped(size int64) { p.skipped.Add(1); p.sent.Add(size) }

func bytesUpload(b []byte) Blob {
	return Blob{What: "blob", Digest: artifact.DigestOf(b), Size: int64(len(b)),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}}
}

// uploaderTo returns an uploader to a registry that may take blobs from other repositories.
func uploaderTo(t *testing.T, s *registrytest.Destination, mountFrom ...string) (*Uploader, *progress) {
	t.Helper()
	sent := new(progress)
	up, err := NewUploader(s.Ref(t), quickOptions(), mountFrom, sent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	return up, sent
}

// pushTo uploads blobs, several at once, and a manifest.
func pushTo(t *testing.T, s *registrytest.Destination, o Options, blobs ...[]byte) error {
	t.Helper()
	up, err := NewUploader(s.Ref(t), o, nil, new(progress))
	if err != nil {
		return err
	}
	defer up.Close()
	g, ctx := errgroup.WithContext(context.Background())
	for _, b := range blobs {
		g.Go(func() error { return up.Upload(ctx, bytesUpload(b)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return up.PutManifest(context.Background(), s.Ref(t).Tag(), []byte("{}"))
}
