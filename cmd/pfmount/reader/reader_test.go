package reader_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/pfmount/pfmount/cache"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/sched"
)

// waits notes which blobs readers wait for.
type waits struct {
	mu   sync.Mutex // guards the fields below
	list []pfimg.Digest
	then func(pfimg.Digest)
}

func (w *waits) wait(d pfimg.Digest) {
	w.mu.Lock()
	w.list = append(w.list, d)
	then := w.then
	w.mu.Unlock()
	if then != nil {
		then(d)
	}
}

// reset forgets the waits so far. then, if not nil, is called in each later one.
func (w *waits) reset(then func(pfimg.Digest)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list, w.then = nil, then
}

func (w *waits) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}

// hook puts waits into a Config.
func (w *waits) hook(c *reader.Config) {
	c.Await = func(d pfimg.Digest) func() { w.wait(d); return func() {} }
}

// watched is a context that tells when a call begins to wait under it.
type watched struct {
	context.Context
	began chan struct{}
}

func newWatched(t *testing.T) watched { return watched{t.Context(), make(chan struct{}, 100)} }

func (w watched) Done() <-chan struct{} {
	w.began <- struct{}{}
	return w.Context.Done()
}

// TestOpen: opening fetches the small top-level blobs once each and knows their sizes, not the
// large one. Files are fetched when they are read, once; of reads of what is cached there is no
// wait.
func TestOpen(t *testing.T) {
	t.Parallel()
	g, w := newRegistry(t, largeTrace()), new(waits)
	r := g.open(t, t.TempDir(), w.hook)
	for _, top := range r.Image().Manifest().TopLevel() {
		size, _ := r.Index().Size(top.Digest)
		n := g.count(top.Digest)
		if large := strings.HasPrefix(top.Path, "trace/"); large {
			if n != 0 || size >= 0 && size != int64(len(largeTrace())) || r.Has(top.Digest) {
				t.Errorf("%s: %d requests, size %d", top.Path, n, size)
			}
		} else if n > 1 || size < 0 {
			t.Errorf("%s: %d requests, size %d", top.Path, n, size)
		}
	}
	for name, want := range files {
		w.reset(nil)
		d, size := r.blob(name)
		if r.Has(d) || g.count(d) != 0 || size != int64(len(want)) {
			t.Errorf("%s is fetched before it is read, or its size %d is wrong", name, size)
		}
		for range 3 {
			if got, err := r.content(t.Context(), name); got != want || err != nil {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
		if n := g.count(d); n != 1 || w.count() != 1 {
			t.Errorf("%s: %d requests and %d waits, want one of each", name, n, w.count())
		}
		if n, ok := r.Stat(d); !ok || n != size || !r.Has(d) {
			t.Errorf("%s: the cache has it: %v, its size %d", name, ok, n)
		}
	}
	var b bytes.Buffer
	d, size := r.blob("a")
	if err := r.Copy(t.Context(), &b, d, size); err != nil || b.String() != files["a"] {
		t.Errorf("copied %q, %v", b.String(), err)
	}
}

// TestOpenAgain: with a warm cache an image is opened by one request, and offline by none.
func TestOpenAgain(t *testing.T) {
	t.Parallel()
	g, dir := newRegistry(t, ""), t.TempDir()
	first := g.open(t, dir, nil)
	if _, err := first.content(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	first.Close()
	before := g.total()
	g.open(t, dir, nil)
	if n := g.total() - before; n != 1 {
		t.Errorf("%d requests to open the image again, want 1", n)
	}
	before = g.total()
	r := g.open(t, dir, func(c *reader.Config) { c.Image.Registry.Offline = true })
	if !r.Image().Stale() {
		t.Error("the image is not stale")
	}
	if got, err := r.content(t.Context(), "a"); got != files["a"] || err != nil {
		t.Errorf("offline: %q, %v", got, err)
	}
	if _, err := r.content(t.Context(), "b"); !errors.Is(err, registry.ErrOffline) {
		t.Errorf("offline: got %v, want %v", err, registry.ErrOffline)
	}
	if n := g.total() - before; n != 0 {
		t.Errorf("%d requests offline", n)
	}
}

// held is a fetch of a blob that the fakeRegistry has not answered.
type held struct {
	ctx      context.Context
	priority *sched.Priority
	used     chan string
	done     chan error
}

// fetch begins a fetch in a class and waits for its request.
func (o opened) fetch(requests <-chan struct{}, name string) *held {
	o.t.Helper()
	h := &held{
		ctx: o.t.Context(), priority: sched.NewPriority(sched.Ahead),
		used: make(chan string, 1), done: make(chan error, 1),
	}
	d, _ := o.blob(name)
	go func() {
		h.done <- o.Fetch(h.ctx, d, h.priority, func(r io.ReaderAt) {
			data, _ := io.ReadAll(io.NewSectionReader(r, 0, 1<<20))
			h.used <- string(data)
		})
	}()
	<-requests
	return h
}

// hold has the fakeRegistry wait before each answer. A request sends to requests; its answer is what is
// received from codes.
func (g *fakeRegistry) hold() (requests chan struct{}, codes chan int) {
	requests, codes = make(chan struct{}, 100), make(chan int)
	g.answer(func(string) int {
		requests <- struct{}{}
		if code, ok := <-codes; ok {
			return code
		}
		return http.StatusServiceUnavailable
	})
	return requests, codes
}

// TestFetch: a fetch fills the cache and passes the blob to its user, unless a reader has come for
// it: the reader joins, and there is one request.
func TestFetch(t *testing.T) {
	t.Parallel()
	g, w := newRegistry(t, ""), new(waits)
	r := g.open(t, t.TempDir(), w.hook)
	requests, codes := g.hold()
	for _, readers := range []int{0, 1, 5} {
		name := map[int]string{0: "a", 1: "b", 5: "d/c"}[readers]
		h := r.fetch(requests, name)
		w.reset(func(pfimg.Digest) { h.priority.Raise(sched.Reader) })
		results, joined := make(chan error, readers), newWatched(t)
		for range readers {
			go func() {
				got, err := r.content(joined, name)
				if err == nil && got != files[name] {
					err = fmt.Errorf("read %q", got)
				}
				results <- err
			}()
			<-joined.began
		}
		codes <- http.StatusOK
		for range readers {
			if err := <-results; err != nil {
				t.Errorf("%d readers: %v", readers, err)
			}
		}
		if err := <-h.done; err != nil {
			t.Errorf("%d readers: the fetch: %v", readers, err)
		}
		d, _ := r.blob(name)
		if n := g.count(d); n != 1 || w.count() != readers {
			t.Errorf("%d readers: %d requests, %d waits", readers, n, w.count())
		}
		if used := len(h.used) == 1; used != (readers == 0) {
			t.Errorf("%d readers: the blob is used: %v", readers, used)
		} else if used {
			if got := <-h.used; got != files[name] {
				t.Errorf("used %q, want %q", got, files[name])
			}
		}
	}
}

// TestFetchFails: when a background fetch fails, a reader that waits for it starts a fetch of its
// own, unless it had raised the first one's priority: then it gets the failure.
func TestFetchFails(t *testing.T) {
	t.Parallel()
	g, w := newRegistry(t, ""), new(waits)
	r := g.open(t, t.TempDir(), w.hook)
	requests, codes := g.hold()
	for name, raised := range map[string]bool{"a": false, "b": true} {
		h := r.fetch(requests, name)
		joined := newWatched(t)
		w.reset(func(pfimg.Digest) {
			if raised {
				h.priority.Raise(sched.Reader)
			}
		})
		done := make(chan error, 1)
		go func() {
			_, err := r.content(joined, name)
			done <- err
		}()
		<-joined.began
		codes <- http.StatusForbidden
		if err := <-h.done; !errors.Is(err, registry.ErrDenied) {
			t.Errorf("raised: %v: the fetch: %v", raised, err)
		}
		if raised {
			if err := <-done; !errors.Is(err, registry.ErrDenied) {
				t.Errorf("raised: the reader got %v, want %v", err, registry.ErrDenied)
			}
			continue
		}
		<-requests
		codes <- http.StatusOK
		if err := <-done; err != nil {
			t.Errorf("not raised: the reader got %v", err)
		}
		if d, _ := r.blob(name); g.count(d) != 2 {
			t.Errorf("not raised: %d requests, want 2", g.count(d))
		}
	}
}

// TestJoins: a reader joins fetches that are given up in the same moment only so often.
func TestJoins(t *testing.T) {
	t.Parallel()
	g, w := newRegistry(t, ""), new(waits)
	r := g.open(t, t.TempDir(), w.hook)
	requests, codes := g.hold()
	var fetches []*held
	w.reset(func(pfimg.Digest) { fetches = append(fetches, r.fetch(requests, "a")) })
	done, joined := make(chan error, 1), newWatched(t)
	go func() {
		_, err := r.content(joined, "a")
		done <- err
	}()
	for n := 0; ; n++ {
		select {
		case <-joined.began:
			codes <- http.StatusForbidden
		case err := <-done:
			if !errors.Is(err, cache.ErrUnwanted) || n < 5 {
				t.Errorf("after %d fetches: %v, want %v after 5", n, err, cache.ErrUnwanted)
			}
			for _, h := range fetches {
				<-h.done
			}
			return
		}
	}
}

// TestWarm: warming reports the bytes that it brings, and none for what is cached.
func TestWarm(t *testing.T) {
	t.Parallel()
	g := newRegistry(t, "")
	r := g.open(t, t.TempDir(), nil)
	d, size := r.blob("a")
	for _, want := range []int64{size, 0} {
		var mu sync.Mutex
		var sum int64
		got, err := r.Warm(t.Context(), d, size, func(n int64) {
			mu.Lock()
			defer mu.Unlock()
			sum += n
		})
		if err != nil || got != size || sum != want {
			t.Errorf("size %d, %v, %d bytes reported; want %d, %d", got, err, sum, size, want)
		}
	}
	if n := g.count(d); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// TestClose: closing ends what is under way.
func TestClose(t *testing.T) {
	t.Parallel()
	g, w := newRegistry(t, ""), new(waits)
	r := g.open(t, t.TempDir(), w.hook)
	requests, codes := g.hold()
	h := r.fetch(requests, "a")
	w.reset(nil)
	done := make(chan error, 1)
	go func() {
		_, err := r.content(t.Context(), "b")
		done <- err
	}()
	<-requests
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range []error{<-done, <-h.done} {
		if !errors.Is(err, cache.ErrClosed) {
			t.Errorf("got %v, want %v", err, cache.ErrClosed)
		}
	}
	close(codes)
}

// TestBlobFault tells the errors of one blob from those of the link.
func TestBlobFault(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		artifact.ErrMissing: true, pfimg.ErrIntegrity: true, cache.ErrSize: true,
		cache.ErrDamaged: true, cache.ErrElsewhere: true,
		registry.ErrRegistry: false, registry.ErrDenied: false, registry.ErrOffline: false,
		sched.ErrGaveWay: false, cache.ErrClosed: false, cache.ErrUnwanted: false,
	} {
		if got := reader.BlobFault(fmt.Errorf("a blob: %w", err)); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// TestRecords: what is put is there for the next reader.
func TestRecords(t *testing.T) {
	t.Parallel()
	g, dir := newRegistry(t, ""), t.TempDir()
	first := g.open(t, dir, nil)
	if _, err := first.Records().Get("name"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	if err := first.Records().Put("name", []byte("text")); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if got, err := g.open(t, dir, nil).Records().Get("name"); string(got) != "text" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestOpenFails: what was opened is closed again, and the cache is free for the next.
func TestOpenFails(t *testing.T) {
	t.Parallel()
	g, dir := newRegistry(t, ""), t.TempDir()
	g.answer(func(string) int { return http.StatusForbidden })
	c := reader.Config{Cache: cache.Options{Dir: dir},
		Image: fetch.Options{Registry: registry.Options{PlainHTTP: true}}}
	if _, err := reader.Open(t.Context(), g.ref, c); !errors.Is(err, registry.ErrDenied) {
		t.Errorf("got %v, want %v", err, registry.ErrDenied)
	}
	g.answer(nil)
	if _, err := g.open(t, dir, nil).content(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	c.Cache.Dir = "/proc/self"
	if r, err := reader.Open(t.Context(), g.ref, c); err == nil {
		r.Close()
		t.Error("a cache in /proc is opened")
	}
}
