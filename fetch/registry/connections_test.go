package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// TestIdleConnectionsDie lets a registry close all connections without an answer, as one that
// restarts does. net/http alone would send a request once for every idle connection.
func TestIdleConnectionsDie(t *testing.T) {
	const idle = 16
	parts := manyBlobs(idle)
	f := registrytest.NewServer(t)
	f.Serve(t, parts...)
	o := quickOptions()
	o.MaxConns = idle
	im := mustOpenImage(t, f.Ref(t), o)
	// All at once, so that as many connections are idle afterwards.
	var together sync.WaitGroup
	together.Add(idle)
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		together.Done()
		together.Wait()
		return false
	})
	if failed := readAll(im, parts); len(failed) > 0 {
		t.Error(failed)
	}
	var sent atomic.Int64
	dead := func(up int64) {
		sent.Store(0)
		f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if sent.Add(1) <= up {
				panic(http.ErrAbortHandler)
			}
			return false
		})
	}
	before := im.traffic.Requests.Load()
	dead(1 << 30)
	err := im.Blob(context.Background(), parts[0].Logical(), int64(len(parts[0].Content)),
		&registrytest.Buffer{})
	if !errors.Is(err, ErrRegistry) || !strings.Contains(err.Error(), "after 5 tries") {
		t.Errorf("got %v", err)
	}
	if n := sent.Load(); n > 5+maxRepeats {
		t.Errorf("%d requests, want at most %d", n, 5+maxRepeats)
	}
	if n := im.traffic.Requests.Load() - before; n != sent.Load() {
		t.Errorf("%d requests counted, %d sent", n, sent.Load())
	}
	dead(0)
	if err := im.Blob(context.Background(), parts[1].Logical(), int64(len(parts[1].Content)),
		&registrytest.Buffer{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestTokenRetryAfter: a token server's Retry-After is obeyed, and too long a one ends the request.
func TestTokenRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		status   int
		after    string
		requests int64
		least    time.Duration
		text     string
	}{
		{429, "1", 2, time.Second, ""}, {503, "1", 2, time.Second, ""}, {500, "", 2, 0, ""},
		{429, "86400", 1, 0, "24h0m0s"}, {503, "86400", 1, 0, "24h0m0s"}, {400, "1", 1, 0, "400"},
		{501, "1", 1, 0, "501"},
	} {
		f := registrytest.NewServer(t)
		f.Serve(t)
		a := withTokens(t, f, "")
		var asked atomic.Int64
		answer := a.Config.Handler
		a.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) > 1 && tt.text == "" {
				answer.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Retry-After", tt.after)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(tt.status)
			fmt.Fprint(w, `{"errors":[{"code":"SLOW","message":"down"}]}`)
		})
		start := time.Now()
		im, err := openImage(context.Background(), f.Ref(t), quickOptions())
		if err == nil {
			im.Close()
		}
		if (err == nil) != (tt.text == "") ||
			err != nil && (!strings.Contains(err.Error(), tt.text) ||
				!strings.Contains(err.Error(), "SLOW")) {
			t.Errorf("%d: got %v, want %q", tt.status, err, tt.text)
		}
		if time.Since(start) < tt.least || asked.Load() != tt.requests {
			t.Errorf("%d: %d requests in %s, want %d in at least %s", tt.status, asked.Load(),
				time.Since(start), tt.requests, tt.least)
		}
	}
}

// TestExpiredRedirect: whatever is asked for, a redirect's target that refuses gets one more chance
// with a new URL.
func TestExpiredRedirect(t *testing.T) {
	for _, status := range []int{400, 403, 404} {
		for _, always := range []bool{false, true} {
			f := registrytest.NewServer(t)
			f.Serve(t)
			seen := map[string]int{}
			f.Answer(func(n int, w http.ResponseWriter, r *http.Request) bool {
				path, signed := strings.CutPrefix(r.URL.Path, "/signed")
				if !signed {
					http.Redirect(w, r, fmt.Sprintf("/signed%s?n=%d", r.URL.Path, n),
						http.StatusTemporaryRedirect)
					return true
				}
				seen[r.Method+path]++
				if always || seen[r.Method+path] == 1 {
					w.WriteHeader(status)
					return true
				}
				r.URL.Path = path
				f.Mu.Lock()
				script := f.Script
				f.Script = nil
				f.Mu.Unlock()
				f.ServeHTTP(w, r)
				f.Answer(script)
				return true
			})
			o := quickOptions()
			o.MaxConns = 1
			there, err := existsAt(context.Background(), f.Ref(t), o)
			if there == always || (err == nil) != (!always || status == 404) {
				t.Errorf("%d, always %v: exists: %v, %v", status, always, there, err)
			}
			im, err := openImage(context.Background(), f.Ref(t), o)
			if err == nil {
				im.Close()
			}
			if (err == nil) == always {
				t.Errorf("%d, always %v: got %v", status, always, err)
			}
			for what, n := range seen {
				want := 2
				if always && what == "GET/v2/a/manifests/latest" {
					want = 4 // it is asked for where HEAD was refused, and by Root
				}
				if n != want {
					t.Errorf("%d, always %v: %d requests for %s, want %d", status, always, n, what, want)
				}
			}
		}
	}
}

// TestHops: five redirects are followed, six are not.
func TestHops(t *testing.T) {
	for hops := 4; hops <= 6; hops++ {
		f := registrytest.NewServer(t)
		f.Serve(t)
		f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			var n int
			_, _ = fmt.Sscan(r.URL.Query().Get("n"), &n)
			if strings.Contains(r.URL.Path, "/manifests/") && n < hops {
				http.Redirect(w, r, fmt.Sprintf("%s?n=%d", r.URL.Path, n+1), http.StatusTemporaryRedirect)
				return true
			}
			return false
		})
		im, err := openImage(context.Background(), f.Ref(t), quickOptions())
		if err == nil {
			im.Close()
		}
		if (err == nil) != (hops <= maxHops) ||
			err != nil && !strings.Contains(err.Error(), "more than 5 redirects") {
			t.Errorf("%d redirects: %v", hops, err)
		}
	}
}

// TestHTTP2 cuts, stalls and refuses over HTTP/2 what TestCutBodies and others do over HTTP/1.1.
func TestHTTP2(t *testing.T) {
	a := newAuthority(t)
	p := registrytest.Layer{Content: registrytest.Noise(2 << 20)}
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	var over1 atomic.Int64
	s := tlsServer(t, a, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			over1.Add(1)
		}
		f.ServeHTTP(w, r)
	})
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch n {
		case 1: // the stream is reset in the middle
			_, _ = w.Write(p.Stored()[:700<<10])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case 2:
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	})
	o := quickOptions()
	o.TLS.CAFile = writeConfig(t, t.TempDir()+"/ca.pem", a.pem)
	im := mustOpenImage(t, registrytest.Ref(t, s.Listener.Addr().String()+"/a"), o)
	var b registrytest.Buffer
	if err := im.Blob(context.Background(), p.Logical(), 2<<20, &b); err != nil || b.Len() != 2<<20 {
		t.Errorf("got %d bytes, %v", b.Len(), err)
	}
	if f.Count(p.BlobPath()) != 3 || over1.Load() != 0 {
		t.Errorf("%d requests for the blob, %d not over HTTP/2", f.Count(p.BlobPath()), over1.Load())
	}
	if r := f.Requests()[len(f.Requests())-1]; !strings.HasPrefix(r.Header.Get("Range"),
		"bytes=") || r.Header.Get("Range") == "bytes=0-" {
		t.Errorf("the last part was asked for with Range %q", r.Header.Get("Range"))
	}
}
