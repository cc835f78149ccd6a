package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

const hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

const fixtures = "../test/testdata/fixtures"

// fastRetry is defaultRetry with waits that a test can bear.
func fastRetry() retryPolicy {
	p := defaultRetry()
	p.base, p.ceiling, p.probe = time.Millisecond, 4*time.Millisecond, 20*time.Millisecond
	return p
}

// fakeRegistry serves blobs and manifests from memory, after asking a script.
type fakeRegistry struct {
	*httptest.Server
	mu       sync.Mutex // guards the fields below
	content  map[string][]byte
	script   func(n int, w http.ResponseWriter, r *http.Request) bool // n-th request of its path, from 1; true: answered
	requests []*http.Request
	seen     map[string]int
}

func newFake(t *testing.T) *fakeRegistry {
	f := &fakeRegistry{content: map[string][]byte{}, seen: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r)
	f.seen[r.URL.Path]++
	n, script, body := f.seen[r.URL.Path], f.script, f.content[r.URL.Path]
	f.mu.Unlock()
	if script != nil && script(n, w, r) {
		return
	}
	if body == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"UNKNOWN","message":"no such thing"}]}`)
		return
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", artifact.MediaTypeManifest)
		w.Header().Set("Docker-Content-Digest", digestOf(body))
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = w.Write(body)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body)) // knows Range
}

// asked returns the requests so far.
func (f *fakeRegistry) asked() []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// forget drops the requests so far.
func (f *fakeRegistry) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = nil
}

// count returns how many requests had path, or with a trailing * began with it.
func (f *fakeRegistry) count(path string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p, c := range f.seen {
		if prefix, ok := strings.CutSuffix(path, "*"); p == path || ok && strings.HasPrefix(p, prefix) {
			n += c
		}
	}
	return n
}

func (f *fakeRegistry) do(script func(n int, w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script = script
}

func (f *fakeRegistry) host() string { return strings.TrimPrefix(f.URL, "http://") }

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// part is a layer of a made image.
type part struct {
	content   []byte
	wire      []byte            // nil: zstd of content
	mediaType string            // "": MediaTypeLayer
	notes     map[string]string // nil: the path annotation
	size      int64             // 0: of wire
	digest    string            // "": of wire
}

func (p part) logical() pfimg.Digest { return sha256.Sum256(p.content) }

func (p part) stored() []byte {
	if p.wire != nil {
		return p.wire
	}
	return compress(p.content)
}

func (p part) wireDigest() string {
	if p.digest != "" {
		return p.digest
	}
	return digestOf(p.stored())
}

func (p part) blobPath() string { return "/v2/a/blobs/" + p.wireDigest() }

func compress(b []byte) []byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return enc.EncodeAll(b, nil)
}

// signedManifest returns a pf manifest with its signature by the default key.
func signedManifest(t testing.TB) (manifest, sig []byte) {
	t.Helper()
	r, err := local.Open(mustRef(t, "oci-layout:"+fixtures+"/layout:minimal"), "", new(artifact.Counters)).Root(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r.Manifest, r.Signature
}

func desc(mediaType string, b []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digestOf(b), "size": len(b)}
}

// makeManifest makes the OCI manifest of an image with these layers after the signature.
func makeManifest(t testing.TB, parts ...part) []byte {
	t.Helper()
	pf, sig := signedManifest(t)
	layers := []any{desc(artifact.MediaTypeSignature, sig)}
	for _, p := range parts {
		d := desc(artifact.MediaTypeLayer, p.stored())
		d["digest"] = p.wireDigest()
		if p.mediaType != "" {
			d["mediaType"] = p.mediaType
		}
		if p.size != 0 {
			d["size"] = p.size
		}
		d["annotations"] = p.notes
		if p.notes == nil {
			d["annotations"] = map[string]string{artifact.PathAnnotation: "blobs/sha256/" + p.logical().Hex()[:2] + "/" + p.logical().Hex() + ".zst"}
		}
		layers = append(layers, d)
	}
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": artifact.MediaTypeManifest, "config": desc(artifact.MediaTypeConfig, pf), "layers": layers})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// serve puts an image with these layers under a:latest.
func (f *fakeRegistry) serve(t testing.TB, parts ...part) {
	t.Helper()
	pf, sig := signedManifest(t)
	raw := makeManifest(t, parts...)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range [][]byte{pf, sig} {
		f.content["/v2/a/blobs/"+digestOf(b)] = b
	}
	for _, p := range parts {
		f.content[p.blobPath()] = p.stored()
	}
	f.content["/v2/a/manifests/latest"] = raw
	f.content["/v2/a/manifests/"+digestOf(raw)] = raw
}

func (f *fakeRegistry) ref(t testing.TB) ref.Ref { return mustRef(t, f.host()+"/a") }

func mustRef(t testing.TB, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func noEnv(string) string { return "" }

func testOptions() Options {
	return Options{Registry: RegistryOptions{Login: LoginOptions{Getenv: noEnv}, StallTimeout: 30 * time.Second, Retry: fastRetry()}}
}

func mustOpen(t testing.TB, r ref.Ref, o Options) *Image {
	t.Helper()
	im, err := Open(context.Background(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = im.Close() })
	return im
}

// buffer is a Sink in memory.
type buffer struct {
	bytes.Buffer
	resets int
	fail   error
}

func (b *buffer) Write(p []byte) (int, error) {
	if b.fail != nil {
		return 0, b.fail
	}
	return b.Buffer.Write(p)
}

func (b *buffer) Reset() error {
	b.resets++
	b.Buffer.Reset()
	return nil
}

// cut writes half of body and breaks the connection, by FIN or RST.
func cut(t *testing.T, w http.ResponseWriter, body []byte, length int, rst bool) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	fmt.Fprint(rw, "HTTP/1.1 200 OK\r\n")
	if length >= 0 {
		fmt.Fprintf(rw, "Content-Length: %d\r\n", length)
	} else {
		fmt.Fprint(rw, "Connection: close\r\n")
	}
	fmt.Fprint(rw, "\r\n")
	_, _ = rw.Write(body)
	_ = rw.Flush()
	if rst {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	_ = conn.Close()
}

// memMeta is a Meta in memory.
type memMeta struct {
	mu    sync.Mutex
	bytes map[[32]byte][]byte
	names map[string][]byte
}

func newMemMeta() *memMeta { return &memMeta{bytes: map[[32]byte][]byte{}, names: map[string][]byte{}} }

func (m *memMeta) Bytes(ctx context.Context, key [32]byte, size int64, fill func(context.Context, artifact.Sink) error) ([]byte, error) {
	m.mu.Lock()
	b, ok := m.bytes[key]
	m.mu.Unlock()
	if ok {
		return b, nil
	}
	if fill == nil {
		return nil, fs.ErrNotExist
	}
	var s buffer
	if err := fill(ctx, &s); err != nil {
		return nil, err
	}
	if sha256.Sum256(s.Bytes()) != key || size >= 0 && int64(s.Len()) != size {
		return nil, fmt.Errorf("fill wrote other bytes than %x", key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes[key] = s.Bytes()
	return s.Bytes(), nil
}

func (m *memMeta) Get(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.names[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memMeta) Put(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.names[name] = bytes.Clone(data)
	return nil
}

func readFixture(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{fixtures}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// get asks for /v2/<repo>/<path>. Any answer but 200, 206 and 416 is an error.
func (c *client) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	return c.do(ctx, call{method: http.MethodGet, path: path, header: header})
}
