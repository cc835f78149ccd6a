package fusefs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/sign"
)

// entry is one line of a tree.
type entry struct {
	Path   string  `json:"path"`
	Mode   string  `json:"mode"`
	Size   int     `json:"size"`
	Kind   string  `json:"kind"`
	Blob   string  `json:"blob,omitempty"`
	Target *string `json:"link_target,omitempty"`

	content string
}

func file(path, content string) entry {
	return entry{Path: path, Mode: "0644", Kind: "file", Size: len(content), content: content}
}

func dir(path string) entry { return entry{Path: path, Mode: "0755", Kind: "dir"} }

func link(path, target string) entry {
	return entry{Path: path, Mode: "0777", Kind: "symlink", Size: len(target), content: target,
		Target: &target}
}

func (e entry) mode(m string) entry { e.Mode = m; return e }

// image is what a test mounts.
type image struct {
	ix    *pfimg.Index
	blobs *fakeBlobs
}

// Contents of the top-level blobs beside the tree and the page table.
const (
	testDiff  = `{"layout":"model.diff.v1","diff":{}}`
	testTrace = "{\"role\":\"user\",\"content\":\"hello\"}\n"
	testEpoch = "2026-05-05T14:11:00.123456789Z"
)

// newImage builds an image whose tree is entries. All sizes are known but that of model/diff.json.
func newImage(t testing.TB, entries ...entry) *image { return newImageAt(t, testEpoch, entries...) }

func newImageAt(t testing.TB, created string, entries ...entry) *image {
	t.Helper()
	blobs := &fakeBlobs{blobs: make(map[pfimg.Digest]*fakeBlob)}
	entries = append([]entry{}, entries...) // never null in JSON
	slices.SortFunc(entries, func(a, b entry) int {
		return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/"))
	})
	for i := range entries {
		if entries[i].Kind != "dir" {
			entries[i].Blob = blobs.add(entries[i].content).String()
		}
	}
	tree, err := json.Marshal(map[string]any{"kind": "fs.tree.v1", "entries": entries})
	if err != nil {
		t.Fatal(err)
	}
	top := map[string]string{
		"model.base": "base:test", "model.diff": testDiff,
		"cache.manifest": `{"layout":"paged-batchinvariant-v1","pages":[]}`,
		"world.fs":       string(tree), "world.env": `{"kind":"env.v1","cwd":"/","vars":{}}`,
		"world.procs":    `{"kind":"procs.unsupported.v1"}`,
		"effects.ledger": "{\"entries\":0,\"kind\":\"effects.ledger.v1\"}\n", "trace.messages": testTrace,
	}
	root := map[string]any{
		"schema_version": 1, "media_type": pfimg.MediaType, "created_at": created, "parents": []string{},
		"agent": map[string]string{"kind": "test", "version": "1", "fingerprint": "f"},
		"cache": map[string]string{"layout": "paged-batchinvariant-v1"},
	}
	for name, content := range top {
		group, field, _ := strings.Cut(name, ".")
		m, _ := root[group].(map[string]string)
		if m == nil {
			m = make(map[string]string)
			root[group] = m
		}
		m[field] = blobs.add(content).String()
	}
	raw, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	m, err := pfimg.Parse(sign.Unverified(raw, []byte(`{"algorithm":"none"}`), "test"))
	if err != nil {
		t.Fatal(err)
	}
	ix, err := pfimg.Build(context.Background(), m, blobs.stream)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range top {
		if name != "model.diff" {
			ix.SetSize(sha256.Sum256([]byte(content)), int64(len(content)))
		}
	}
	blobs.reset()
	return &image{ix: ix, blobs: blobs}
}

// fakeBlobs is a map of blobs that can be made to wait, fail and lie.
type fakeBlobs struct {
	waiting atomic.Int32 // calls of Open that wait at the moment

	mu    sync.Mutex
	blobs map[pfimg.Digest]*fakeBlob
}

// fakeBlob is a blob and how it behaves when it is opened.
type fakeBlob struct {
	content string
	opened  int
	stall   chan struct{}                                 // Open waits until it is closed
	fail    error                                         // Open's answer
	read    func(p []byte, off int64, n int) (int, error) // answers ReadAt in the n-th open
	size    func() int64                                  // lies about the size
}

var _ Blobs = (*fakeBlobs)(nil)

func (b *fakeBlobs) add(content string) pfimg.Digest {
	d := pfimg.Digest(sha256.Sum256([]byte(content)))
	b.blobs[d] = &fakeBlob{content: content}
	return d
}

func (b *fakeBlobs) Open(ctx context.Context, d pfimg.Digest, size int64) (File, error) {
	b.mu.Lock()
	blob, ok := b.blobs[d]
	if !ok {
		b.mu.Unlock()
		return nil, errors.New("no such blob")
	}
	blob.opened++
	stall := blob.stall
	b.mu.Unlock()
	if stall != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("open: %w", ctx.Err())
		}
		b.waiting.Add(1)
		defer b.waiting.Add(-1)
		select {
		case <-stall:
		case <-ctx.Done():
			return nil, fmt.Errorf("open: %w", ctx.Err())
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if blob.fail != nil {
		return nil, blob.fail
	}
	return &fakeFile{blob: blob, nth: blob.opened}, nil
}

func (b *fakeBlobs) stream(ctx context.Context, d pfimg.Digest) (io.ReadCloser, error) {
	f, err := b.Open(ctx, d, -1)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(f, 0, f.Size())), nil
}

// change changes how the blob with that content behaves.
func (b *fakeBlobs) change(content string, how func(*fakeBlob)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	how(b.blobs[sha256.Sum256([]byte(content))])
}

// stall makes opens of the blob wait until the returned function is called.
func (b *fakeBlobs) stall(t testing.TB, content string) (release func()) {
	c := make(chan struct{})
	b.change(content, func(f *fakeBlob) { f.stall = c })
	release = sync.OnceFunc(func() { close(c) })
	t.Cleanup(release)
	return release
}

// opened returns how often the blob was opened, or all were when content is empty.
func (b *fakeBlobs) opened(content string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, blob := range b.blobs {
		if content == "" || blob.content == content {
			n += blob.opened
		}
	}
	return n
}

func (b *fakeBlobs) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, blob := range b.blobs {
		blob.opened = 0
	}
}

// wait waits until n opens wait.
func (b *fakeBlobs) wait(t testing.TB, n int32) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("%d waiting opens", n),
		func() bool { return b.waiting.Load() == n })
}

type fakeFile struct {
	blob *fakeBlob
	nth  int
}

func (f *fakeFile) ReadAt(p []byte, off int64) (int, error) {
	if f.blob.read != nil {
		return f.blob.read(p, off, f.nth)
	}
	return bytes.NewReader([]byte(f.blob.content)).ReadAt(p, off)
}

func (f *fakeFile) Size() int64 {
	if f.blob.size != nil {
		return f.blob.size()
	}
	return int64(len(f.blob.content))
}

func (f *fakeFile) Close() error { return nil }

// eventually fails the test unless ok becomes true within the limit.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}
