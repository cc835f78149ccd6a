package prefetch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/prefetch"
	"github.com/pfmount/pfmount/fetch/sched"
	"github.com/pfmount/pfmount/sign"
)

// folder is where the files of a test image are.
const folder = "d"

// fakeImage is an image with count files, named in the order of their rows.
type fakeImage struct {
	manifest *pfimg.Manifest
	index    *pfimg.Index
	rows     []pfimg.Row
	blobs    []pfimg.Digest          // of rows
	content  map[pfimg.Digest][]byte // of all blobs
	missing  map[pfimg.Digest]bool   // blobs that the image does not have
	idle     func(context.Context) error
}

// newImage returns an image of count files. Their sizes are told, not made, where size is over 0.
func newImage(t *testing.T, count, size int, parents ...pfimg.Digest) *fakeImage {
	t.Helper()
	im := &fakeImage{content: map[pfimg.Digest][]byte{}, missing: map[pfimg.Digest]bool{}}
	im.idle = func(ctx context.Context) error { return ctx.Err() }
	add := func(content string) string {
		d := pfimg.Digest(sha256.Sum256([]byte(content)))
		im.content[d] = []byte(content)
		return d.String()
	}
	sizeOf := func(content string) int {
		if size > 0 {
			return size
		}
		return len(content)
	}
	entries := []map[string]any{{"path": folder, "mode": "0755", "size": 0, "kind": "dir"}}
	for i := range count {
		content := fmt.Sprintf("content of file %06d", i)
		entries = append(entries, map[string]any{
			"path": fmt.Sprintf("%s/%06d", folder, i), "mode": "0644", "kind": "file",
			"size": sizeOf(content), "blob": add(content),
		})
	}
	tree, err := json.Marshal(map[string]any{"kind": "fs.tree.v1", "entries": entries})
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{}
	for _, d := range parents {
		ids = append(ids, d.String())
	}
	raw, err := json.Marshal(map[string]any{
		"schema_version": 1, "media_type": pfimg.MediaType, "parents": ids,
		"created_at": "2026-05-05T14:11:00Z",
		"agent":      map[string]string{"kind": "test", "version": "1", "fingerprint": "f"},
		"model":      map[string]string{"base": add("base"), "diff": add("diff")},
		"cache": map[string]string{
			"layout":   "paged-batchinvariant-v1",
			"manifest": add(`{"layout":"paged-batchinvariant-v1","pages":[]}`),
		},
		"world": map[string]string{
			"fs": add(string(tree)), "env": add("env"), "procs": add("procs"),
		},
		"effects": map[string]string{"ledger": add("ledger")},
		"trace":   map[string]string{"messages": add("messages")},
	})
	if err != nil {
		t.Fatal(err)
	}
	im.manifest, err = pfimg.Parse(sign.Unverified(raw, []byte(`{"algorithm":"none"}`), "a test"))
	if err != nil {
		t.Fatal(err)
	}
	open := func(_ context.Context, d pfimg.Digest) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(im.content[d])), nil
	}
	if im.index, err = pfimg.Build(t.Context(), im.manifest, open); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		row, ok := im.index.Find(fmt.Sprintf("world/fs/%s/%06d", folder, i))
		if !ok {
			t.Fatalf("there is no file %d", i)
		}
		d, _, _ := im.index.Blob(row)
		im.rows, im.blobs = append(im.rows, row), append(im.blobs, d)
	}
	return im
}

func (im *fakeImage) Manifest() *pfimg.Manifest { return im.manifest }

func (im *fakeImage) Wire(d pfimg.Digest) (wire, decoded int64, ok bool) {
	return 10, -1, !im.missing[d]
}

func (im *fakeImage) WaitIdle(ctx context.Context) error { return im.idle(ctx) }

// dir returns the row of the folder.
func (im *fakeImage) dir() pfimg.Row { return im.index.Parent(im.rows[0]) }

// fakeCache is a cache that fetches what fetch lets pass.
type fakeCache struct {
	image *fakeImage
	room  int64
	fetch func(context.Context, pfimg.Digest) error // nil: fetches succeed

	mu      sync.Mutex // guards the fields below
	cached  map[pfimg.Digest]bool
	begun   []pfimg.Digest
	classes []sched.Class // at the end of each fetch that succeeded
	current int
	most    int // fetches under way at once
}

func (c *fakeCache) Has(d pfimg.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cached[d]
}

func (c *fakeCache) Room() int64 { return c.room }

func (c *fakeCache) Fetch(
	ctx context.Context, d pfimg.Digest, p *sched.Priority, use func(io.ReaderAt),
) error {
	c.mu.Lock()
	c.current++
	c.most = max(c.most, c.current)
	there := c.cached[d]
	if !there {
		c.begun = append(c.begun, d)
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.current--
	}()
	if !there && c.fetch != nil {
		if err := c.fetch(ctx, d); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.cached[d] = true
	c.classes = append(c.classes, p.Class())
	c.mu.Unlock()
	if use != nil && p.Class() != sched.Reader {
		use(bytes.NewReader(c.image.content[d]))
	}
	return nil
}

// fetched returns the blobs for which a fetch began, in no order.
func (c *fakeCache) fetched() []pfimg.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.begun)
}

// fakeKernel is a page cache. It knows the files of known; nil: all.
type fakeKernel struct {
	mu    sync.Mutex // guards the fields below
	known map[pfimg.Row]bool
	pages map[pfimg.Row]string
}

func (k *fakeKernel) Store(r pfimg.Row, data []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known != nil && !k.known[r] {
		return fmt.Errorf("unknown: %w", fs.ErrNotExist)
	}
	k.pages[r] = string(data)
	return nil
}

func (k *fakeKernel) stored() map[pfimg.Row]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	pages := map[pfimg.Row]string{}
	for r, data := range k.pages {
		pages[r] = data
	}
	return pages
}

// fakeRecords keeps records in memory.
type fakeRecords struct {
	mu    sync.Mutex // guards texts
	texts map[string][]byte
}

func (r *fakeRecords) Get(name string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if data, ok := r.texts[name]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (r *fakeRecords) Put(name string, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.texts[name] = data
	return nil
}

// mount is a prefetcher with all that it needs, in a bubble of synctest.
type mount struct {
	*prefetch.Prefetcher
	image    *fakeImage
	cache    *fakeCache
	kernel   *fakeKernel
	inflight *prefetch.Inflight
	log      *bytes.Buffer
}

// errBlob is an error of one blob.
var errBlob = fmt.Errorf("this blob is bad")

// newMount returns a mount of an image with an empty cache. change may change its parts before it
// starts.
func newMount(image *fakeImage, change func(*mount, *prefetch.Config)) *mount {
	m := &mount{
		image:    image,
		cache:    &fakeCache{image: image, room: 1 << 40, cached: map[pfimg.Digest]bool{}},
		kernel:   &fakeKernel{pages: map[pfimg.Row]string{}},
		inflight: new(prefetch.Inflight), log: new(bytes.Buffer),
	}
	c := prefetch.Config{
		Index: image.index, Image: image, Cache: m.cache, Inflight: m.inflight, Online: true,
		Limits:    prefetch.Limits{Connections: 32, Fills: 1024, CacheSize: 1 << 40, MaxPush: 1 << 17},
		BlobFault: func(err error) bool { return err == errBlob },
		Log:       slog.New(slog.NewTextHandler(m.log, nil)),
	}
	if change != nil {
		change(m, &c)
	}
	m.Prefetcher = prefetch.New(c)
	return m
}

// read reads files in order, and lets the prefetcher do what follows from each.
func (m *mount) read(pid uint32, from, to int) {
	for _, r := range m.image.rows[from:to] {
		m.Reading(r, pid)
		synctest.Wait()
	}
}

// cacheAll makes all blobs cached.
func (m *mount) cacheAll() {
	for d := range m.image.content {
		m.cache.cached[d] = true
	}
}

// sorted returns digests in an order that can be compared.
func sorted(list []pfimg.Digest) []pfimg.Digest {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b pfimg.Digest) int { return bytes.Compare(a[:], b[:]) })
	return list
}
