package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/sign"
)

// sinkRegistry takes uploads and keeps them in memory.
type sinkRegistry struct {
	*httptest.Server
	answer func(w http.ResponseWriter, r *http.Request) bool // true: answered
	quay   bool                                              // answers to writes are of type text/html

	mu        sync.Mutex // guards the fields below
	blobs     map[string][]byte
	manifests map[string][]byte
	seen      map[string]int // by method and kind
	inFlight  int
	peak      int
	query     string // of the last PUT
}

func newSink(t *testing.T) *sinkRegistry {
	s := &sinkRegistry{blobs: map[string][]byte{}, manifests: map[string][]byte{}, seen: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *sinkRegistry) ref(t *testing.T) ref.Ref {
	return mustRef(t, strings.TrimPrefix(s.URL, "http://")+"/a:v1")
}

func (s *sinkRegistry) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[what]
}

func (s *sinkRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := "blob"
	switch {
	case strings.Contains(r.URL.Path, "/uploads/"):
		kind = "upload"
	case strings.Contains(r.URL.Path, "/manifests/"):
		kind = "manifest"
	}
	s.mu.Lock()
	s.seen[r.Method+" "+kind]++
	s.inFlight++
	s.peak = max(s.peak, s.inFlight)
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.inFlight--; s.mu.Unlock() }()
	if s.answer != nil && s.answer(w, r) {
		return
	}
	name := filepath.Base(r.URL.Path)
	if s.quay {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
	}
	switch r.Method + " " + kind {
	case "HEAD blob":
		s.mu.Lock()
		b, ok := s.blobs[name]
		s.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	case "HEAD manifest", "GET manifest":
		s.mu.Lock()
		b, ok := s.manifests[name]
		for _, m := range s.manifests {
			if digestOf(m) == name {
				b, ok = m, true
			}
		}
		s.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", artifact.MediaTypeManifest)
		w.Header().Set("Docker-Content-Digest", digestOf(b))
		_, _ = w.Write(b)
	case "POST upload":
		w.Header().Set("Location", "/v2/a/blobs/uploads/1?state=a%2Fb%3D")
		w.WriteHeader(http.StatusAccepted)
	case "PUT upload", "PUT manifest":
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if kind == "manifest" {
			s.manifests[name] = b
		} else {
			s.blobs[r.URL.Query().Get("digest")], s.query = b, r.URL.RawQuery
		}
		if s.quay {
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, "OK")
			return
		}
		w.WriteHeader(http.StatusNoContent) // any 2xx will do
	}
}

// openCargo opens a fixture with its index.
func openCargo(t *testing.T, ref string) Cargo {
	t.Helper()
	im := mustOpen(t, mustRef(t, ref), testOptions())
	ix, err := pfimg.Build(context.Background(), im.Manifest(), func(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) {
		var b buffer
		err := im.Blob(ctx, d, -1, &b)
		return io.NopCloser(&b), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return Cargo{Image: im, Index: ix}
}

func push(t *testing.T, s *sinkRegistry, c Cargo, key string) (Report, error) {
	t.Helper()
	return Push(context.Background(), c, s.ref(t), PushOptions{Registry: testOptions().Registry, Key: sign.Key(key)})
}

func TestPushIsTheReferences(t *testing.T) {
	for _, tag := range []string{"basic", "pages", "nothing", "many"} {
		s := newSink(t)
		c := openCargo(t, "oci-layout:"+fixtures+"/layout:"+tag)
		r, err := push(t, s, c, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := digestOf(s.manifests["v1"]); got != c.Image.Digest() || r.Digest != got {
			t.Errorf("%s: manifest %s, report %s, want %s", tag, got, r.Digest, c.Image.Digest())
		}
		if r.Copied != r.Blobs || r.Copied != len(s.blobs) || r.Bytes != c.Image.WireBytes() {
			t.Errorf("%s: %+v, %d blobs there", tag, r, len(s.blobs))
		}
		for d, b := range s.blobs {
			if digestOf(b) != d {
				t.Errorf("%s: %s holds %s", tag, d, digestOf(b))
			}
		}
		if !strings.HasPrefix(s.query, "state=a%2Fb%3D&digest=sha256:") {
			t.Errorf("query of a PUT: %q", s.query)
		}
		if r, err = push(t, s, c, ""); err != nil || r.Copied != 0 || r.Skipped != r.Blobs || s.count("POST upload") != len(s.blobs) {
			t.Errorf("%s: a second push: %+v, %v, %d POST", tag, r, err, s.count("POST upload"))
		}
	}
}

// TestWriteManifest compares what is written with what the reference tool wrote.
func TestWriteManifest(t *testing.T) {
	for _, tag := range []string{"basic", "merged", "minimal"} {
		c := openCargo(t, "oci-layout:"+fixtures+"/layout:"+tag)
		var items []artifact.StoredBlob
		for d := range c.Index.Blobs() {
			l := c.Image.reader.Root().Find(d)[0]
			items = append(items, artifact.StoredBlob{Logical: d, Wire: l.Wire, Size: l.Size, Decoded: -1})
		}
		got, err := artifact.WriteManifest(c.Image.manifest.Raw, c.Image.reader.Root().Signature, items)
		want, wantErr := c.Image.ociBytes(context.Background())
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %v\n got %.400s\nwant %.400s", tag, err, wantErr, got, want)
		}
	}
}

func TestPushAnnotates(t *testing.T) {
	s := newSink(t)
	if _, err := push(t, s, openCargo(t, "file://"+mustAbs(t, fixtures+"/file-registry")), "a key"); err != nil {
		t.Fatal(err)
	}
	m, err := artifact.ParseManifest(bytes.NewReader(s.manifests["v1"]), "")
	if err != nil {
		t.Fatal(err)
	}
	annotated := 0
	for _, l := range m.Named {
		if l.Decoded < 0 {
			continue
		}
		annotated++
		var b buffer
		if err := newTestDecoder(t, s.blobs[l.Wire.String()], &b); err != nil || int64(b.Len()) != l.Decoded {
			t.Errorf("%s: annotated %d, is %d (%v)", l.Logical, l.Decoded, b.Len(), err)
		}
	}
	if annotated < 7 || annotated > 8 {
		t.Errorf("%d layers are annotated, want those of the top level", annotated)
	}
	if _, err := (sign.Policy{Keys: []sign.Key{sign.Key("a key")}, Require: true}).Verify(s.blobs[m.Config.Wire.String()], s.blobs[m.Signatures[0].Wire.String()]); err != nil {
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
	s := newSink(t)
	var waiting atomic.Int32
	enough := make(chan struct{})
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
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
	_, err := Push(context.Background(), openCargo(t, "oci-layout:"+fixtures+"/layout:basic"), s.ref(t), PushOptions{Registry: o.Registry})
	if err != nil || s.peak < minWorkers {
		t.Errorf("%v, at most %d requests at once", err, s.peak)
	}
}

func TestPushFailures(t *testing.T) {
	c := openCargo(t, "oci-layout:"+fixtures+"/layout:minimal")
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
		}, ErrDenied, "not on my watch"},
		{"POST", refuse("POST", "uploads", 405), ErrRegistry, "not on my watch"},
		{"PUT", refuse("PUT", "uploads", 413), ErrRegistry, "not on my watch"},
		{"PUT, again and again", refuse("PUT", "uploads", 500), ErrRegistry, "after 5 tries"},
		{"manifest", refuse("PUT", "manifests", 400), ErrRegistry, "not on my watch"},
		{"another host", locate("http://127.0.0.9/x?sig=secret"), ErrRegistry, "another host"},
		{"another scheme", locate("ftp://127.0.0.1/x"), ErrRegistry, "another host"},
		{"no location", locate(""), ErrRegistry, "no Location"},
		{"POST says 200", func(w http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodPost }, ErrRegistry, "not 202"},
		{"redirect to another host", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				http.Redirect(w, r, "http://localhost:1/x?sig=secret", http.StatusTemporaryRedirect)
			}
			return r.Method == http.MethodPut
		}, ErrRegistry, "another host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSink(t)
			s.answer = tt.answer
			_, err := push(t, s, c, "")
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %v with %q", err, tt.is, tt.says)
			}
			if len(s.manifests) > 0 {
				t.Error("there is a tag")
			}
		})
	}
}

// TestPushSlowUpload has a server that takes its time, but takes bytes: that is no stall.
func TestPushSlowUpload(t *testing.T) {
	t.Parallel() // it waits
	s := newSink(t)
	s.answer = func(w http.ResponseWriter, r *http.Request) bool {
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
	o := testOptions()
	o.Registry.StallTimeout = 10 * time.Second
	o = o.withDefaults()
	sent := new(progress)
	p, err := newUploader(s.ref(t), o.Registry, new(mountSources), sent)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	body := bytes.Repeat([]byte("x"), 24<<20)
	u := upload{what: "blob", digest: artifact.DigestOf(body), size: int64(len(body)), open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(body)), nil
	}}
	if err := p.put(context.Background(), u); err != nil {
		t.Errorf("a slow upload: %v", err)
	}
	if n := sent.sent.Load(); n != int64(len(body)) {
		t.Errorf("%d bytes counted of %d", n, len(body))
	}
}

func TestPushOfDamagedBlobs(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(fixtures+"/file-registry")); err != nil {
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
		s := newSink(t)
		if _, err := push(t, s, c, ""); !errors.Is(err, pfimg.ErrIntegrity) || len(s.seen) > 0 {
			t.Errorf("%s: got %v after %v", name, err, s.seen)
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
	f := newFake(t)
	f.serve(t)
	host := f.host()
	for _, tt := range []struct {
		ref   string
		there bool
	}{
		{host + "/a", true}, {host + "/a:none", false}, {host + "/b", false},
		{"oci-layout:" + fixtures + "/layout:basic", true}, {"oci-layout:" + fixtures + "/layout:nix", false},
		{"file://" + mustAbs(t, fixtures+"/file-registry"), true}, {"file:///nowhere", false},
	} {
		if got, err := Exists(context.Background(), mustRef(t, tt.ref), testOptions()); got != tt.there || err != nil {
			t.Errorf("%s: got %t, %v", tt.ref, got, err)
		}
	}
	for code, want := range map[int]error{401: ErrDenied, 403: ErrDenied, 500: ErrRegistry, 418: ErrRegistry} {
		f.do(func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true })
		if got, err := Exists(context.Background(), f.ref(t), testOptions()); got || !errors.Is(err, want) {
			t.Errorf("%d: got %t, %v, want %v", code, got, err, want)
		}
	}
}
