package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/fetch/sched"
)

// otherHost serves content on another loopback address, as a blob store behind a registry does.
func otherHost(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func TestRedirectToAnotherHost(t *testing.T) {
	p := registrytest.Layer{Content: registrytest.Noise(1 << 20)}
	for _, login := range []func(string) string{registrytest.Env("OCI_BEARER", "tok"), registrytest.Env("OCI_USERNAME", "u", "OCI_PASSWORD", "p")} {
		f := registrytest.NewServer(t)
		f.Serve(t, p)
		var hits atomic.Int64
		store := otherHost(t, func(w http.ResponseWriter, r *http.Request) {
			for _, name := range []string{"Authorization", "Referer", "Cookie"} {
				if v := r.Header.Get(name); v != "" {
					t.Errorf("%s went to another host: %q", name, v)
				}
			}
			switch hits.Add(1) {
			case 1: // the signed URL has expired
				w.WriteHeader(http.StatusForbidden)
			case 2:
				registrytest.Cut(t, w, p.Stored()[:100<<10], len(p.Stored()), false)
			default:
				partial(t, w, r, p.Stored(), 1<<20)
			}
		})
		f.Answer(func(n int, w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			if r.URL.Path != p.BlobPath() {
				return false
			}
			http.Redirect(w, r, fmt.Sprintf("%s/blob?sig=%d", store, n), http.StatusTemporaryRedirect)
			return true
		})
		o := quickOptions()
		o.Login.Getenv = login
		im := mustOpenImage(t, f.Ref(t), o)
		var b registrytest.Buffer
		if err := im.Blob(context.Background(), p.Logical(), 1<<20, &b); err != nil ||
			!bytes.Equal(b.Bytes(), p.Content) {
			t.Errorf("got %d bytes, %v", b.Len(), err)
		}
		if hits.Load() != 3 || f.Count(p.BlobPath()) != 3 {
			t.Errorf("%d requests at the store, %d at the registry, want 3 and 3", hits.Load(),
				f.Count(p.BlobPath()))
		}
	}
}

func TestRedirectDownIsRefused(t *testing.T) {
	var asked atomic.Bool
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL, http.StatusTemporaryRedirect)
	}))
	defer secure.Close()
	c, _ := elsewhere(t, "registry.test/a", secure.Listener.Addr().String(), quickOptions(),
		func(b *http.Transport) {
			b.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			b.TLSClientConfig.ServerName = "example.com"
		})
	_, err := c.get(context.Background(), "blobs/x", nil)
	if !errors.Is(err, ErrRegistry) || !strings.Contains(err.Error(), "https to http") || asked.Load() {
		t.Errorf("got %v, asked %v", err, asked.Load())
	}
}

func TestGuard(t *testing.T) {
	tests := []struct {
		url   string
		auth  bool
		body  bool
		plain bool
		ok    bool
	}{
		{"https://registry.test/v2/", true, true, false, true},
		{"http://registry.test/v2/", true, false, false, false},
		{"http://registry.test/v2/", false, true, false, false},
		{"http://registry.test/v2/", false, false, false, true},
		{"http://registry.test/v2/", true, true, true, true},
		{"http://127.0.0.1:5000/v2/", true, true, false, true},
		{"http://127.0.0.1.evil.example/v2/", true, false, false, false},
	}
	for _, tt := range tests {
		req := httptest.NewRequest(http.MethodPost, tt.url, nil)
		req.Body = nil
		if tt.body {
			req.Body = http.NoBody
			req = httptest.NewRequest(http.MethodPost, tt.url, strings.NewReader("x"))
		}
		if tt.auth {
			req.Header.Set("Authorization", "Bearer x")
		}
		err := (&transport{plain: tt.plain}).guard(req)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, errRule) {
			t.Errorf("%+v: got %v", tt, err)
		}
	}
}

// TestMaxConns reads many blobs at once; a token is asked for while all places are taken.
func TestMaxConns(t *testing.T) {
	parts := manyBlobs(24)
	f := registrytest.NewServer(t)
	f.Serve(t, parts...)
	o := quickOptions()
	o.MaxConns = 4
	im := mustOpenImage(t, f.Ref(t), o)
	var now, most atomic.Int64
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		return false
	})
	if failed := readAll(im, parts); len(failed) > 0 {
		t.Error(failed)
	}
	if most.Load() > 4 || most.Load() < 2 {
		t.Errorf("%d requests at once, want at most 4 and not one by one", most.Load())
	}
}

// TestTokensDoNotQueue: a request for a token is known by what asks for it, not by its path, which
// may be below /v2/.
func TestTokensDoNotQueue(t *testing.T) {
	req := httptest.NewRequest(http.MethodGet, "http://h/v2/auth", nil)
	if isToken(req) {
		t.Error("a request of nobody's counts as one for a token")
	}
	if !isToken(req.WithContext(context.WithValue(req.Context(), tokenNoteKey{}, new(tokenNote)))) {
		t.Error("a request for a token does not count as one")
	}
}

// TestPlaceIsGivenBack ends requests in every way with one place only.
func TestPlaceIsGivenBack(t *testing.T) {
	t.Parallel() // it waits
	small, large := registrytest.Layer{Content: []byte("small")}, registrytest.Layer{Content: registrytest.Noise(4 << 20)}
	f := registrytest.NewServer(t)
	f.Serve(t, small, large)
	o := quickOptions()
	o.MaxConns = 1
	o.StallTimeout = 10 * time.Second
	im := mustOpenImage(t, f.Ref(t), o)
	release := make(chan struct{})
	defer close(release)
	f.Answer(func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == small.BlobPath() && n == 1:
			w.WriteHeader(404)
		case r.URL.Path == large.BlobPath() && n == 1:
			_, _ = w.Write(large.Stored()[:1000])
			w.(http.Flusher).Flush()
			<-release
		case r.URL.Path == large.BlobPath() && n == 2:
			<-release
		default:
			return false
		}
		return true
	})
	read := func(p registrytest.Layer, size int64, ctx context.Context) {
		_ = im.Blob(ctx, p.Logical(), size, &registrytest.Buffer{})
	}
	read(small, 5, context.Background())   // 404
	read(large, -1, context.Background())  // stalls in the body
	read(large, -1, context.Background())  // stalls before it
	read(large, 100, context.Background()) // is refused
	_ = im.Blob(context.Background(), large.Logical(), -1, &registrytest.Buffer{Fail: errors.New("full")})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	read(large, -1, ctx)
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := im.Blob(ctx, small.Logical(), 5, &registrytest.Buffer{}); err != nil {
		t.Errorf("the place is still held: %v", err)
	}
}

// TestHostDown lets many readers meet a registry that is down, and come back with it.
func TestHostDown(t *testing.T) {
	parts := manyBlobs(60)
	f := registrytest.NewServer(t)
	f.Serve(t, parts...)
	o := quickOptions()
	o.MaxConns = 8
	o.Retry.Probe = 150 * time.Millisecond
	im := mustOpenImage(t, f.Ref(t), o)
	var down atomic.Bool
	var sent atomic.Int64
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if down.Load() {
			sent.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down.Load()
	})
	down.Store(true)
	start := time.Now()
	if n := len(readAll(im, parts)); n != 60 {
		t.Errorf("%d of 60 reads failed", n)
	}
	// All requests under way when it went down, and then one an interval; without a gate it is 300.
	if limit := 8 + 3 + int64(time.Since(start)/o.Retry.Probe) + 2; sent.Load() > limit {
		t.Errorf("%d requests to a host that is down in %s, want at most %d", sent.Load(),
			time.Since(start), limit)
	}
	down.Store(false)
	if n := len(readAll(im, parts)); n != 0 {
		t.Errorf("after it came back %d reads failed", n)
	}
}

// TestProbeIsUrgent: the request that finds out whether a host is back goes ahead of background
// requests even when it is one itself, since readers wait for what it finds.
func TestProbeIsUrgent(t *testing.T) {
	tr := &transport{limiter: sched.NewLimiter(4, 0)}
	tr.limiter.Report(true, time.Minute)
	h := &host{breaker: &breaker{downAfter: 1}}
	h.breaker.report(nil, errors.New("down"), true)
	ctx, cancel := context.WithTimeout(sched.WithPriority(t.Context(),
		sched.NewPriority(sched.Ahead)), time.Minute)
	defer cancel()
	p, release, err := tr.admit(ctx, h, false)
	if err != nil || p == nil {
		t.Fatalf("probe %v, %v", p, err)
	}
	release()
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		broken := errors.New("broken")
		g := &breaker{downAfter: 2, interval: 30 * time.Millisecond}
		enter := func() *probe {
			t.Helper()
			p, err := g.allow(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		if enter() != nil || g.down() {
			t.Error("a new gate is shut")
		}
		g.report(nil, broken, true)
		g.report(nil, nil, true)
		g.report(nil, broken, true)
		if g.down() {
			t.Error("one failure after a success shuts it")
		}
		g.report(nil, broken, false)
		if g.down() {
			t.Error("a reader that went away counts as a failure")
		}
		g.report(nil, broken, true)
		if !g.down() {
			t.Error("two failures in a row do not shut it")
		}
		start := time.Now()
		p := enter()
		if p == nil || time.Since(start) < 20*time.Millisecond {
			t.Errorf("probe %v after %s", p, time.Since(start))
		}
		shared := make(chan error, 10)
		for range cap(shared) {
			go func() {
				_, err := g.allow(ctx)
				shared <- err
			}()
		}
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		defer cancel()
		if _, err := g.allow(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a reader that leaves: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
		g.report(p, broken, true)
		for range cap(shared) {
			if err := <-shared; err != broken {
				t.Errorf("a waiting reader got %v", err)
			}
		}
		g.report(enter(), nil, false) // the prober goes away: the next one probes
		g.report(enter(), nil, true)
		if enter() != nil || g.down() {
			t.Error("a success does not open it")
		}
	})
}
