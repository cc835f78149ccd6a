package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// oneBlob serves an image with one blob and returns it opened.
func oneBlob(t *testing.T, p registrytest.Layer, o Options) (*registrytest.Server, *testImage) {
	t.Helper()
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	return f, mustOpenImage(t, f.Ref(t), o)
}

// TestCutBodies is case 18: a body that ends early is resumed.
func TestCutBodies(t *testing.T) {
	p := registrytest.Layer{Content: registrytest.Noise(2 << 20)}
	wire := p.Stored()
	for _, length := range []bool{true, false} {
		for _, rst := range []bool{true, false} {
			f, im := oneBlob(t, p, quickOptions())
			f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n != 1 {
					return n == 2 && partial(t, w, r, wire, 400<<10)
				}
				size := -1
				if length {
					size = len(wire)
				}
				registrytest.Cut(t, w, wire[:len(wire)/3], size, rst)
				return true
			})
			var b registrytest.Buffer
			err := im.Blob(context.Background(), p.Logical(), int64(len(p.Content)), &b)
			if err != nil || !bytes.Equal(b.Bytes(), p.Content) {
				t.Errorf("length %v, rst %v: got %d bytes, %v", length, rst, b.Len(), err)
			}
			if n := f.Count(p.BlobPath()); n > 4 {
				t.Errorf("length %v, rst %v: %d requests", length, rst, n)
			}
			if b.Resets != 0 {
				t.Errorf("length %v, rst %v: the sink was reset %d times", length, rst, b.Resets)
			}
		}
	}
}

// partial answers a Range request rightly but ends after n bytes.
func partial(t *testing.T, w http.ResponseWriter, r *http.Request, wire []byte, n int) bool {
	var from int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err != nil {
		return false // nothing had arrived before the reset
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(wire)-1, len(wire)))
	w.Header().Set("Content-Length", fmt.Sprint(len(wire)-from))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(wire[from:min(from+n, len(wire))])
	return true
}

// TestResume gives odd answers to the request for the rest.
func TestResume(t *testing.T) {
	p := registrytest.Layer{Content: registrytest.Noise(1<<20 + 5)}
	wire := p.Stored()
	rng := func(header string, body []byte) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", header)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(body)
		}
	}
	whole := func(w http.ResponseWriter) { _, _ = w.Write(wire) }
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter)
		max    int
	}{
		{"range ignored", whole, 2},
		{"another offset", rng(fmt.Sprintf("bytes 7-%d/%d", len(wire)-1, len(wire)), wire[7:]), 3},
		{"another total", rng(fmt.Sprintf("bytes 1000-%d/%d", len(wire), len(wire)+1), wire[1000:]), 3},
		{"no Content-Range", rng("", wire[1000:]), 3},
		{"416", func(w http.ResponseWriter) { w.WriteHeader(416) }, 3},
	}
	for _, tt := range tests {
		f, im := oneBlob(t, p, quickOptions())
		f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
			switch n {
			case 1:
				registrytest.Cut(t, w, wire[:1000], len(wire), false)
			case 2:
				if got := r.Header.Get("Range"); got != "bytes=1000-" {
					t.Errorf("%s: Range is %q", tt.name, got)
				}
				tt.answer(w)
			default:
				if got := r.Header.Get("Range"); got != "" {
					t.Errorf("%s: after that Range is %q", tt.name, got)
				}
				return false
			}
			return true
		})
		var b registrytest.Buffer
		err := im.Blob(context.Background(), p.Logical(), int64(len(p.Content)), &b)
		if err != nil || !bytes.Equal(b.Bytes(), p.Content) {
			t.Errorf("%s: got %d bytes, %v", tt.name, b.Len(), err)
		}
		if n := f.Count(p.BlobPath()); n > tt.max {
			t.Errorf("%s: %d requests, want at most %d", tt.name, n, tt.max)
		}
	}
}

// TestStatuses is case 34: which answers are tried again, and how often.
func TestStatuses(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	tests := []struct {
		status, times int
		want          error // nil: it reads in the end
		requests      int
	}{
		{408, 2, nil, 3}, {429, 2, nil, 3}, {500, 2, nil, 3}, {502, 2, nil, 3}, {503, 4, nil, 5},
		{504, 2, nil, 3},
		{503, 9, ErrRegistry, 5}, {429, 9, ErrRegistry, 5},
		{400, 9, ErrRegistry, 1}, {401, 9, ErrDenied, 1}, {403, 9, ErrDenied, 1},
		{404, 9, artifact.ErrMissing, 1}, {501, 9, ErrRegistry, 1},
		{410, 9, ErrRegistry, 1}, {304, 9, ErrRegistry, 1}, {206, 9, ErrRegistry, 1},
	}
	for _, tt := range tests {
		f, im := oneBlob(t, p, quickOptions())
		f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n <= tt.times {
				w.WriteHeader(tt.status)
			}
			return n <= tt.times
		})
		var b registrytest.Buffer
		err := im.Blob(context.Background(), p.Logical(), 7, &b)
		if !errors.Is(err, tt.want) || err == nil && b.String() != "content" {
			t.Errorf("%d × %d: got %q, %v, want %v", tt.status, tt.times, &b, err, tt.want)
		}
		if n := f.Count(p.BlobPath()); n != tt.requests {
			t.Errorf("%d × %d: %d requests, want %d", tt.status, tt.times, n, tt.requests)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := map[string]time.Duration{
		"2": 2 * time.Second, " 7 ": 7 * time.Second, "0": 0, "-1": 0, "x": 0, "": 0, "86400": 24 * time.Hour,
		now.Add(9 * time.Second).Format(http.TimeFormat):  9 * time.Second,
		now.Add(-9 * time.Second).Format(http.TimeFormat): 0,
	}
	for in, want := range tests {
		if got := retryAfter(http.Header{"Retry-After": {in}}, now); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
	p := registrytest.Layer{Content: []byte("content")}
	for _, after := range []string{"1", "date"} {
		f, im := oneBlob(t, p, quickOptions())
		f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
			value := after
			if after == "date" {
				value = time.Now().Add(2 * time.Second).UTC().Format(http.TimeFormat)
			}
			w.Header().Set("Retry-After", value)
			if n == 1 {
				w.WriteHeader(429)
			}
			return n == 1
		})
		start := time.Now()
		if err := im.Blob(context.Background(), p.Logical(), 7,
			&registrytest.Buffer{}); err != nil || time.Since(start) < 900*time.Millisecond {
			t.Errorf("%s: %v after %s", after, err, time.Since(start))
		}
	}
	f, im := oneBlob(t, p, quickOptions())
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(429)
		return true
	})
	err := im.Blob(context.Background(), p.Logical(), 7, &registrytest.Buffer{})
	if !errors.Is(err, ErrRegistry) || !strings.Contains(err.Error(), "24h0m0s") ||
		f.Count(p.BlobPath()) != 1 {
		t.Errorf("too long: got %v after %d requests", err, f.Count(p.BlobPath()))
	}
}

// TestProgressResetsTries cuts a long body more often than there are tries.
func TestProgressResetsTries(t *testing.T) {
	p := registrytest.Layer{Content: registrytest.Noise(3 << 20)}
	wire := p.Stored()
	o := quickOptions()
	o.Retry.Progress = 200 << 10
	f, im := oneBlob(t, p, o)
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			registrytest.Cut(t, w, wire[:300<<10], len(wire), false)
			return true
		}
		return partial(t, w, r, wire, 300<<10)
	})
	var b registrytest.Buffer
	if err := im.Blob(context.Background(), p.Logical(), int64(len(p.Content)), &b); err != nil ||
		!bytes.Equal(b.Bytes(), p.Content) {
		t.Errorf("got %d bytes, %v", b.Len(), err)
	}
	if n := f.Count(p.BlobPath()); n < 8 {
		t.Errorf("%d requests: the test cut too little", n)
	}
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		registrytest.Cut(t, w, wire[:1], len(wire), false)
		return true
	})
	before := f.Count(p.BlobPath())
	err := im.Blob(context.Background(), p.Logical(), int64(len(p.Content)), &registrytest.Buffer{})
	if !errors.Is(err, ErrRegistry) || !strings.Contains(err.Error(), "after 5 tries") ||
		f.Count(p.BlobPath())-before != 5 {
		t.Errorf("always cut: got %v after %d requests", err, f.Count(p.BlobPath())-before)
	}
}

// TestWrongBytes changes stored bytes on the way: once is mended past the caches, always is an
// integrity error.
func TestWrongBytes(t *testing.T) {
	for _, content := range [][]byte{[]byte("content"), registrytest.Noise(2 << 20),
		registrytest.Noise(5 << 20)} {
		for _, at := range []int{2, -1} { // the magic; the last byte
			p := registrytest.Layer{Content: content}
			wire := bytes.Clone(p.Stored())
			if at < 0 {
				at += len(wire)
			}
			wire[at] ^= 0x55
			var log bytes.Buffer
			o := quickOptions()
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			f, im := oneBlob(t, p, o)
			var always atomic.Bool
			f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Via", "1.1 badproxy")
				w.Header().Set("Age", "77")
				if r.Header.Get("Cache-Control") == "no-cache" && !always.Load() {
					return false
				}
				_, _ = w.Write(wire)
				return true
			})
			var b registrytest.Buffer
			if err := im.Blob(context.Background(), p.Logical(), int64(len(content)),
				&b); err != nil || !bytes.Equal(b.Bytes(), content) || b.Resets != 1 {
				t.Errorf("%d bytes, changed at %d: got %d bytes, %d resets, %v", len(content), at,
					b.Len(), b.Resets, err)
			}
			for _, want := range []string{"badproxy", "Age=77", f.Host(), p.WireDigest(),
				p.Logical().String()} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("the log does not name %q: %s", want, &log)
				}
			}
			always.Store(true)
			before := f.Count(p.BlobPath())
			err := im.Blob(context.Background(), p.Logical(), int64(len(content)), &b)
			if !errors.Is(err, pfimg.ErrIntegrity) ||
				!strings.Contains(err.Error(), p.WireDigest()) || f.Count(p.BlobPath())-before != 2 {
				t.Errorf("always wrong: got %v after %d requests", err, f.Count(p.BlobPath())-before)
			}
		}
	}
}

// TestLyingLength announces another length than the descriptor's.
func TestLyingLength(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	f, im := oneBlob(t, p, quickOptions())
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "3")
		fmt.Fprint(w, "abc")
		return true
	})
	if err := im.Blob(context.Background(), p.Logical(), 7, &registrytest.Buffer{}); !errors.Is(err,
		pfimg.ErrIntegrity) || f.Count(p.BlobPath()) != 2 {
		t.Errorf("shorter: got %v after %d requests", err, f.Count(p.BlobPath()))
	}
	f.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
		w.(http.Flusher).Flush() // chunked
		_, _ = w.Write(append(p.Stored(), "and more"...))
		return true
	})
	var b registrytest.Buffer
	if err := im.Blob(context.Background(), p.Logical(), 7, &b); err != nil || b.String() != "content" {
		t.Errorf("longer: got %q, %v", &b, err)
	}
}
