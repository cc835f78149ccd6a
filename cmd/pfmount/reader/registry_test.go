package reader_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/fetch/registry"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/capture"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// fakeRegistry serves one image, that of a captured directory.
type fakeRegistry struct {
	ref    ref.Ref
	layout string
	wires  map[string]string // logical to wire digest

	mu       sync.Mutex // guards the fields below
	requests []string   // digests or tags, in order
	blob     func(wire string) int
}

// files are those of the image of newRegistry.
var files = map[string]string{"a": "content of a", "b": "content of b", "d/c": "content of c"}

// largeTrace is the content of a top-level blob that is too large to be fetched unasked.
var largeTrace = sync.OnceValue(func() string {
	var b strings.Builder
	for x := uint64(1); b.Len() < 2*reader.EagerLimit; {
		b.WriteString(`{"role":"user","content":"`)
		for range 1000 { // does not compress well
			x = x*6364136223846793005 + 1442695040888963407
			b.WriteByte('!' + 2 + byte(x>>58)%56)
		}
		b.WriteString("\"}\n")
	}
	return strings.ReplaceAll(b.String(), `\`, "z")
})

// newRegistry returns a fakeRegistry with an image of files, and of a trace.
func newRegistry(t *testing.T, trace string) *fakeRegistry {
	t.Helper()
	source, folder := t.TempDir(), t.TempDir()
	traceFile := filepath.Join(t.TempDir(), "trace.jsonl")
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		write(filepath.Join(source, name), content)
	}
	write(traceFile, trace)
	_, err := capture.Capture(t.Context(), source, folder, capture.Options{Trace: traceFile})
	if err != nil {
		t.Fatal(err)
	}
	g := &fakeRegistry{layout: t.TempDir(), wires: map[string]string{}}
	g.fill(t, folder)
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	g.ref = parse(t, strings.TrimPrefix(server.URL, "http://")+"/image:tag")
	return g
}

// fill copies the image in a folder to the fakeRegistry.
func (g *fakeRegistry) fill(t *testing.T, folder string) {
	t.Helper()
	o := fetch.Options{TrustFolder: "it is a test's"}
	image, err := reader.OpenImage(t.Context(), parse(t, "file://"+folder), o)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	ix, err := reader.BuildIndex(t.Context(), image, nil)
	if err != nil {
		t.Fatal(err)
	}
	dest, err := ref.ParseDest("oci-layout:"+g.layout+":tag", "")
	if err != nil {
		t.Fatal(err)
	}
	cargo := fetch.Cargo{Image: image, Index: ix}
	if _, err := fetch.Pull(t.Context(), cargo, dest, fetch.PullOptions{}); err != nil {
		t.Fatal(err)
	}
	var m struct {
		Layers []struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(g.read(t, g.manifest(t)), &m); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		name := path.Base(l.Annotations[artifact.PathAnnotation])
		g.wires["sha256:"+strings.TrimSuffix(name, ".zst")] = l.Digest
	}
}

func parse(t *testing.T, name string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// manifest returns the digest of the OCI manifest.
func (g *fakeRegistry) manifest(t *testing.T) string {
	t.Helper()
	var index struct {
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	data, err := os.ReadFile(filepath.Join(g.layout, "index.json"))
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index.json: %d manifests, %v", len(index.Manifests), err)
	}
	return index.Manifests[0].Digest
}

// read returns the content of a stored blob.
func (g *fakeRegistry) read(t *testing.T, digest string) []byte {
	t.Helper()
	data, err := os.ReadFile(g.path(digest))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (g *fakeRegistry) path(digest string) string {
	return filepath.Join(g.layout, "blobs", strings.Replace(digest, ":", "/", 1))
}

func (g *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) != 4 {
		return
	}
	kind, name := parts[2], parts[3]
	g.mu.Lock()
	g.requests = append(g.requests, name)
	blob := g.blob
	g.mu.Unlock()
	if kind == "manifests" {
		entries, _ := os.ReadFile(filepath.Join(g.layout, "index.json"))
		_, digest, _ := strings.Cut(string(entries), `"digest":`)
		name = strings.Split(strings.TrimSpace(digest), `"`)[1]
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", name)
	} else if blob != nil {
		if code := blob(name); code != http.StatusOK {
			w.WriteHeader(code)
			return
		}
	}
	http.ServeFile(w, r, g.path(name))
}

// answer has blob called for each request of a blob. It returns the code of the answer.
func (g *fakeRegistry) answer(blob func(wire string) int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blob = blob
}

// count returns how many requests there were for a blob, by its logical digest.
func (g *fakeRegistry) count(d pfimg.Digest) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range g.requests {
		if name == g.wires[d.String()] {
			n++
		}
	}
	return n
}

// total returns how many requests there were.
func (g *fakeRegistry) total() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.requests)
}

// opened is an open reader of the fakeRegistry's image.
type opened struct {
	*reader.Reader
	t *testing.T
}

// open opens the image behind a cache.
func (g *fakeRegistry) open(t *testing.T, dir string, change func(*reader.Config)) opened {
	t.Helper()
	c := reader.Config{
		Cache: cache.Options{Dir: dir},
		Image: fetch.Options{Registry: registry.Options{
			PlainHTTP: true,
			Login:     registry.LoginOptions{Getenv: func(string) string { return "" }},
		}},
	}
	if change != nil {
		change(&c)
	}
	r, err := reader.Open(t.Context(), g.ref, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return opened{r, t}
}

// blob returns digest and size of a file of the image.
func (o opened) blob(name string) (pfimg.Digest, int64) {
	o.t.Helper()
	row, ok := o.Index().Find("world/fs/" + name)
	if !ok {
		o.t.Fatalf("there is no file %q", name)
	}
	d, size, _ := o.Index().Blob(row)
	return d, size
}

// content reads a file of the image.
func (o opened) content(ctx context.Context, name string) (string, error) {
	d, size := o.blob(name)
	f, err := o.Open(ctx, d, size)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	return string(data), err
}
