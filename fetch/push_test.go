package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/sign"
)

// openCargo opens a fixture with its index.
func openCargo(t *testing.T, ref string) Cargo {
	t.Helper()
	im := mustOpen(t, registrytest.Ref(t, ref), testOptions())
	ix, err := pfimg.Build(context.Background(), im.Manifest(),
		func(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) {
			var b registrytest.Buffer
			err := im.Blob(ctx, d, -1, &b)
			return io.NopCloser(&b), err
		})
	if err != nil {
		t.Fatal(err)
	}
	return Cargo{Image: im, Index: ix}
}

func push(t *testing.T, s *registrytest.Destination, c Cargo, key string) (Report, error) {
	t.Helper()
	return Push(context.Background(), c, s.Ref(t),
		PushOptions{Registry: testOptions().Registry, Key: sign.Key(key)})
}

func TestPushIsTheReferences(t *testing.T) {
	for _, tag := range []string{"basic", "pages", "nothing", "many"} {
		s := registrytest.NewDestination(t)
		c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:"+tag)
		r, err := push(t, s, c, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := registrytest.DigestOf(s.Manifests["v1"]); got != c.Image.Digest() || r.Digest != got {
			t.Errorf("%s: manifest %s, report %s, want %s", tag, got, r.Digest, c.Image.Digest())
		}
		if r.Copied != r.Blobs || r.Copied != len(s.Blobs) || r.Bytes != c.Image.Facts().WireBytes {
			t.Errorf("%s: %+v, %d blobs there", tag, r, len(s.Blobs))
		}
		for d, b := range s.Blobs {
			if registrytest.DigestOf(b) != d {
				t.Errorf("%s: %s holds %s", tag, d, registrytest.DigestOf(b))
			}
		}
		if !strings.HasPrefix(s.Query, "state=a%2Fb%3D&digest=sha256:") {
			t.Errorf("query of a PUT: %q", s.Query)
		}
		if r, err = push(t, s, c, ""); err != nil || r.Copied != 0 || r.Skipped != r.Blobs ||
			s.Count("POST upload") != len(s.Blobs) {
			t.Errorf("%s: a second push: %+v, %v, %d POST", tag, r, err, s.Count("POST upload"))
		}
	}
}

// TestWriteManifest compares what is written with what the reference tool wrote.
func TestWriteManifest(t *testing.T) {
	for _, tag := range []string{"basic", "merged", "minimal"} {
		c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:"+tag)
		var items []artifact.StoredBlob
		for d := range c.Index.Blobs() {
			l := c.Image.reader.Root().Find(d)[0]
			items = append(items, artifact.StoredBlob{Logical: d, Wire: l.Wire, Size: l.Size, Decoded: -1})
		}
		got, err := artifact.WriteManifest(c.Image.manifest.Raw, c.Image.reader.Root().Signature, items)
		want, wantErr := c.ociBytes(context.Background())
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %v\n got %.400s\nwant %.400s", tag, err, wantErr, got, want)
		}
	}
}

func TestPushAnnotates(t *testing.T) {
	s := registrytest.NewDestination(t)
	if _, err := push(t, s, openCargo(t, "file://"+mustAbs(t,
		registrytest.Fixtures+"/file-registry")), "a key"); err != nil {
		t.Fatal(err)
	}
	m, err := artifact.ParseManifest(bytes.NewReader(s.Manifests["v1"]), "")
	if err != nil {
		t.Fatal(err)
	}
	annotated := 0
	for _, l := range m.Named {
		if l.Decoded < 0 {
			continue
		}
		annotated++
		var b registrytest.Buffer
		if err := newTestDecoder(t, s.Blobs[l.Wire.String()], &b); err != nil || int64(b.Len()) != l.Decoded {
			t.Errorf("%s: annotated %d, is %d (%v)", l.Logical, l.Decoded, b.Len(), err)
		}
	}
	if annotated < 7 || annotated > 8 {
		t.Errorf("%d layers are annotated, want those of the top level", annotated)
	}
	if _, err := (sign.Policy{Keys: []sign.Key{sign.Key("a key")},
		Require: true}).Verify(s.Blobs[m.Config.Wire.String()], s.Blobs[m.Signatures[0].Wire.String()]); err != nil {
		t.Errorf("the new signature: %v", err)
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func newTestDecoder(t *testing.T, stored []byte, w io.Writer) error {
	t.Helper()
	d := artifact.NewDecoders(2)
	defer d.Close()
	return d.Copy(context.Background(), w, bytes.NewReader(stored), false)
}

func TestPushManyAtOnce(t *testing.T) {
	s := registrytest.NewDestination(t)
	var waiting atomic.Int32
	enough := make(chan struct{})
	s.Answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") {
			if waiting.Add(1) == minWorkers {
				close(enough)
			}
			select {
			case <-enough:
			case <-time.After(time.Minute):
			}
		}
		return false
	}
	o := testOptions()
	o.Registry.StallTimeout = 2 * time.Minute
	_, err := Push(context.Background(), openCargo(t,
		"oci-layout:"+registrytest.Fixtures+"/layout:basic"), s.Ref(t), PushOptions{Registry: o.Registry})
	if err != nil || s.Peak < minWorkers {
		t.Errorf("%v, at most %d requests at once", err, s.Peak)
	}
}

func TestPushFailures(t *testing.T) {
	c := openCargo(t, "oci-layout:"+registrytest.Fixtures+"/layout:minimal")
	refuse := func(method, part string, code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !strings.Contains(r.URL.Path, part) {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "NO", "message": "not on my watch"}}})
			return true
		}
	}
	locate := func(to string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				w.Header().Set("Location", to)
				w.WriteHeader(http.StatusAccepted)
			}
			return r.Method == http.MethodPost
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request) bool
		is     error
		says   string
	}{
		{"HEAD and POST denied", func(w http.ResponseWriter, r *http.Request) bool {
			return refuse("HEAD", "", 403)(w, r) || refuse("POST", "", 403)(w, r)
		}, registry.ErrDenied, "not on my watch"},
		{"POST", refuse("POST", "uploads", 405), registry.ErrRegistry, "not on my watch"},
		{"PUT", refuse("PUT", "uploads", 413), registry.ErrRegistry, "not on my watch"},
		{"PUT, again and again", refuse("PUT", "uploads", 500), registry.ErrRegistry, "after 5 tries"},
		{"manifest", refuse("PUT", "manifests", 400), registry.ErrRegistry, "not on my watch"},
		{"another host", locate("http://127.0.0.9/x?sig=secret"), registry.ErrRegistry, "another host"},
		{"another scheme", locate("ftp://127.0.0.1/x"), registry.ErrRegistry, "another host"},
		{"no location", locate(""), registry.ErrRegistry, "no Location"},
		{"POST says 200", func(w http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodPost }, registry.ErrRegistry, "not 202"},
		{"redirect to another host", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				http.Redirect(w, r, "http://localhost:1/x?sig=secret", http.StatusTemporaryRedirect)
			}
			return r.Method == http.MethodPut
		}, registry.ErrRegistry, "another host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := registrytest.NewDestination(t)
			s.Answer = tt.answer
			_, err := push(t, s, c, "")
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) ||
				strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %v with %q", err, tt.is, tt.says)
			}
			if len(s.Manifests) > 0 {
				t.Error("there is a tag")
			}
		})
	}
}

func TestPushOfDamagedBlobs(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(registrytest.Fixtures+"/file-registry")); err != nil {
		t.Fatal(err)
	}
	c := openCargo(t, "file://"+dir)
	path := filepath.Join(dir, c.Image.manifest.World.Env.StoredPath())
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"longer": func() error { return os.WriteFile(path, append(readFile(t, path), 1, 2, 3), 0o600) },
		"short":  func() error { return os.Truncate(path, 20) },
		"gone":   func() error { return os.Remove(path) },
	} {
		before := readFile(t, path)
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		s := registrytest.NewDestination(t)
		if _, err := push(t, s, c, ""); !errors.Is(err, pfimg.ErrIntegrity) || len(s.Seen) > 0 {
			t.Errorf("%s: got %v after %v", name, err, s.Seen)
		}
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExists(t *testing.T) {
	f := registrytest.NewServer(t)
	f.Serve(t)
	host := f.Host()
	for _, tt := range []struct {
		ref   string
		there bool
	}{
		{host + "/a", true}, {host + "/a:none", false}, {host + "/b", false},
		{"oci-layout:" + registrytest.Fixtures + "/layout:basic", true},
		{"oci-layout:" + registrytest.Fixtures + "/layout:nix", false},
		{"file://" + mustAbs(t, registrytest.Fixtures+"/file-registry"), true}, {"file:///nowhere", false},
	} {
		if got, err := Exists(context.Background(), registrytest.Ref(t, tt.ref),
			testOptions()); got != tt.there || err != nil {
			t.Errorf("%s: got %t, %v", tt.ref, got, err)
		}
	}
	for code, want := range map[int]error{401: registry.ErrDenied, 403: registry.ErrDenied,
		500: registry.ErrRegistry, 418: registry.ErrRegistry} {
		f.Answer(func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true })
		if got, err := Exists(context.Background(), f.Ref(t), testOptions()); got || !errors.Is(err, want) {
			t.Errorf("%d: got %t, %v, want %v", code, got, err, want)
		}
	}
}
