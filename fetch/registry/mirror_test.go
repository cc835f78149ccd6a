package registry

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// mirrored is a registry, a mirror of it on another address, and an image that both have.
type mirrored struct {
	up, mirror *registrytest.Server
	parts      []registrytest.Layer
	options    Options
	log        *syncBuffer
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// withMirror makes the two; table is what hosts.toml says of the mirror.
func withMirror(t *testing.T, table string, parts ...registrytest.Layer) *mirrored {
	t.Helper()
	m := &mirrored{up: registrytest.NewServer(t), parts: parts, options: quickOptions(), log: new(syncBuffer)}
	m.mirror = registrytest.NewServerAt(t, "127.0.0.2:0")
	m.up.Serve(t, parts...)
	m.mirror.Serve(t, parts...)
	m.options.Log = slog.New(slog.NewTextHandler(m.log, nil))
	m.options.TLS.HostsDir = writeHosts(t, m.up.Host(), "[host.\""+m.mirror.URL+"\"]\n"+table)
	m.options.Retry.Spare = 100 * time.Millisecond
	return m
}

// read reads all parts and says how many failed.
func (m *mirrored) read(t *testing.T, im *testImage) (failed int) {
	t.Helper()
	for _, p := range m.parts {
		var b registrytest.Buffer
		err := im.Blob(context.Background(), p.Logical(), int64(len(p.Content)), &b)
		if err != nil || !bytes.Equal(b.Bytes(), p.Content) {
			t.Logf("%v", err)
			failed++
		}
	}
	return failed
}

// TestMirror: which host gets which requests and which headers.
func TestMirror(t *testing.T) {
	tests := []struct {
		table          string
		manifests, own int // asked of mirror and registry
	}{
		{"capabilities = [\"pull\"]\n", 0, 1},
		{"capabilities = [\"pull\", \"resolve\"]\n", 1, 0},
		{"", 1, 0},
		{"capabilities = [\"resolve\"]\n", 1, 0},
	}
	for _, tt := range tests {
		m := withMirror(t, tt.table+"[host.\"http://127.0.0.9\"]\n[host.\"http://127.0.0.9\".header]\nx-other = \"SECRET\"\n", registrytest.Layer{Content: []byte("content")})
		m.options.TLS.HostsDir = writeHosts(t, m.up.Host(),
			"[host.\""+m.mirror.URL+"\"]\n"+tt.table+"[host.\""+m.mirror.URL+"\".header]\nx-mirror = \"SECRET\"\n")
		m.options.Login.Getenv = registrytest.Env("OCI_BEARER", "tok")
		im := mustOpenImage(t, m.up.Ref(t), m.options)
		if failed := m.read(t, im); failed != 0 {
			t.Errorf("%q: a read failed", tt.table)
		}
		if got := m.mirror.Count("/v2/a/manifests/*"); got != tt.manifests {
			t.Errorf("%q: %d manifests of the mirror, want %d", tt.table, got, tt.manifests)
		}
		if got := m.up.Count("/v2/a/manifests/*"); got != tt.own {
			t.Errorf("%q: %d manifests of the registry, want %d", tt.table, got, tt.own)
		}
		blobs, others := m.mirror, m.up
		if tt.table == "capabilities = [\"resolve\"]\n" {
			blobs, others = m.up, m.mirror
		}
		if blobs.Blobs() != 3 || others.Blobs() != 0 {
			t.Errorf("%q: %d and %d blobs, want 3 and 0", tt.table, blobs.Blobs(), others.Blobs())
		}
		for _, r := range m.mirror.Requests() {
			if r.Header.Get("Authorization") != "" || r.Header.Get("X-Mirror") != "SECRET" ||
				r.URL.Query().Get("ns") != m.up.Host() {
				t.Errorf("to the mirror: %s with %v", r.URL, r.Header)
			}
		}
		for _, r := range m.up.Requests() {
			if r.Header.Get("Authorization") != "Bearer tok" || r.Header.Get("X-Mirror") != "" ||
				r.URL.RawQuery != "" {
				t.Errorf("to the registry: %s with %v", r.URL, r.Header)
			}
		}
	}
}

// TestMirrorFails: whatever a mirror does, the registry is asked, and the mirror is left alone
// while it is down.
func TestMirrorFails(t *testing.T) {
	parts := manyBlobs(20)
	answer := func(status int, header ...string) func(*testing.T, http.ResponseWriter) {
		return func(_ *testing.T, w http.ResponseWriter) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
		}
	}
	tests := []struct {
		name   string
		answer func(t *testing.T, w http.ResponseWriter)
		most   int // requests to the mirror
	}{
		{"404", answer(404), 23},
		{"401", answer(401, "WWW-Authenticate", `Basic realm="x"`), 23},
		{"403", answer(403), 23},
		{"429", answer(429, "Retry-After", "86400"), 23},
		{"500", answer(500), 23},
		{"502", answer(502), 1},
		{"503 for a day", answer(503, "Retry-After", "86400"), 1},
		{"504", answer(504), 1},
		{"reset", func(*testing.T, http.ResponseWriter) { panic(http.ErrAbortHandler) }, 3},
		{"redirects in a circle", answer(307, "Location", "/v2/a/blobs/x"), 200},
		{"other coding", answer(200, "Content-Encoding", "gzip"), 23},
		{"206 unasked", answer(206), 46},
		{"web page", answer(200, "Content-Type", "text/html"), 46},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := withMirror(t, "", parts...)
			m.options.Retry.Spare = time.Hour
			m.mirror.Answer(func(_ int, w http.ResponseWriter, _ *http.Request) bool { tt.answer(t, w); return true })
			im := mustOpenImage(t, m.up.Ref(t), m.options)
			if failed := m.read(t, im); failed != 0 {
				t.Errorf("%d reads failed", failed)
			}
			if m.up.Count("/v2/a/manifests/*") == 0 || m.up.Blobs() != 22 {
				t.Errorf("%d blobs of the registry, want 22", m.up.Blobs())
			}
			if got := len(m.mirror.Requests()); got > tt.most {
				t.Errorf("%d requests to the mirror, want at most %d", got, tt.most)
			}
			want := 1
			if tt.name == "404" {
				want = 0
			}
			if got := strings.Count(m.log.String(), "a mirror fails"); got != want {
				t.Errorf("%d log lines, want %d: %s", got, want, m.log)
			}
		})
	}
}

// TestMirrorComesBack: a mirror that is down is asked again after a while, and used.
func TestMirrorComesBack(t *testing.T) {
	m := withMirror(t, "", registrytest.Layer{Content: []byte("content")})
	var down atomic.Bool
	down.Store(true)
	m.mirror.Answer(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		if down.Load() {
			w.WriteHeader(503)
		}
		return down.Load()
	})
	im := mustOpenImage(t, m.up.Ref(t), m.options)
	if m.read(t, im) != 0 || m.mirror.Blobs() != 0 {
		t.Fatalf("%d blobs of a mirror that is down", m.mirror.Blobs())
	}
	down.Store(false)
	for end := time.Now().Add(time.Minute); m.mirror.Blobs() == 0 &&
		time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		m.read(t, im)
	}
	if m.mirror.Blobs() == 0 || !strings.Contains(m.log.String(), "answers again") {
		t.Errorf("the mirror is not used again: %s", m.log)
	}
}

// TestMirrorBreaksBodies: a body that breaks goes on at the registry, at the byte where it broke.
func TestMirrorBreaksBodies(t *testing.T) {
	t.Parallel() // it waits
	p, next := registrytest.Layer{Content: registrytest.Noise(2 << 20)}, registrytest.Layer{Content: []byte("next")}
	for _, stall := range []bool{false, true} {
		m := withMirror(t, "", p, next)
		m.options.Retry.Spare = time.Hour
		m.options.StallTimeout = 10 * time.Second
		free := make(chan struct{})
		m.mirror.OnBlob(p, func(_ int, w http.ResponseWriter, r *http.Request) bool {
			if !stall {
				registrytest.Cut(t, w, p.Stored()[:1<<20], len(p.Stored()), true)
				return true
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(p.Stored())))
			_, _ = w.Write(p.Stored()[:1<<20])
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-free:
			}
			return true
		})
		im := mustOpenImage(t, m.up.Ref(t), m.options)
		if m.read(t, im) != 0 {
			t.Errorf("stall %v: the read failed", stall)
		}
		close(free)
		if a, b := m.mirror.Count(p.BlobPath()), m.up.Count(p.BlobPath()); a != 1 || b != 1 {
			t.Errorf("stall %v: %d and %d requests, want 1 and 1", stall, a, b)
		}
		if a, b := m.mirror.Count(next.BlobPath()), m.up.Count(next.BlobPath()); a != 0 || b != 1 {
			t.Errorf("stall %v: the next blob: %d and %d requests, want 0 and 1", stall, a, b)
		}
		if r := m.up.Requests()[len(m.up.Requests())-2]; !strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
			t.Errorf("stall %v: the registry was asked for all of it: %v", stall, r.Header)
		}
	}
}

// TestMirrorWrongBytes: once more past every cache, then the registry, and the log names the host.
func TestMirrorWrongBytes(t *testing.T) {
	for _, content := range [][]byte{[]byte("content"), registrytest.Noise(2 << 20)} {
		for _, healed := range []bool{false, true} {
			p := registrytest.Layer{Content: content}
			m := withMirror(t, "", p)
			wrong := bytes.Clone(p.Stored())
			wrong[len(wrong)/2] ^= 0xff
			m.mirror.OnBlob(p, func(n int, w http.ResponseWriter, r *http.Request) bool {
				if fresh := r.Header.Get("Cache-Control") == "no-cache"; fresh != (n > 1) {
					t.Errorf("request %d with Cache-Control %q", n, r.Header.Get("Cache-Control"))
				}
				if n > 1 && healed {
					return false
				}
				w.Header().Set("Via", "1.1 squid-7")
				w.Header().Set("Content-Length", fmt.Sprint(len(wrong)))
				_, _ = w.Write(wrong)
				return true
			})
			im := mustOpenImage(t, m.up.Ref(t), m.options)
			if m.read(t, im) != 0 {
				t.Errorf("the read failed")
			}
			want := 1
			if healed {
				want = 0
			}
			if a, b := m.mirror.Count(p.BlobPath()), m.up.Count(p.BlobPath()); a != 2 || b != want {
				t.Errorf("healed %v: %d and %d requests, want 2 and %d", healed, a, b, want)
			}
			for _, text := range []string{m.mirror.Host(), "squid-7", p.WireDigest()} {
				if !strings.Contains(m.log.String(), text) {
					t.Errorf("the log has no %q: %s", text, m.log)
				}
			}
		}
	}
}

// TestMirrorManifests: a mirror that lies about a manifest is not believed either.
func TestMirrorManifests(t *testing.T) {
	m := withMirror(t, "", registrytest.Layer{Content: []byte("content")})
	raw := m.up.Content["/v2/a/manifests/latest"]
	m.mirror.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", artifact.MediaTypeManifest)
		w.Header().Set("Docker-Content-Digest", registrytest.DigestOf(raw))
		fmt.Fprint(w, "{}")
		return true
	})
	im := mustOpenImage(t, m.up.Ref(t), m.options)
	if m.read(t, im) != 0 || im.Digest() != registrytest.DigestOf(raw) {
		t.Errorf("got %s", im.Digest())
	}
	if a, b := m.mirror.Count("/v2/a/manifests/*"), m.up.Count("/v2/a/manifests/*"); a != 2 || b != 1 {
		t.Errorf("%d and %d requests, want 2 and 1", a, b)
	}
}

// TestAllFail: the error names every host that was asked.
func TestAllFail(t *testing.T) {
	m := withMirror(t, "")
	m.mirror.Answer(func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true })
	m.up.Answer(func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(403); return true })
	_, err := openImage(context.Background(), m.up.Ref(t), m.options)
	if err == nil || !strings.Contains(err.Error(), "403") ||
		!strings.Contains(err.Error(), "500") || !strings.Contains(err.Error(), m.mirror.Host()) {
		t.Errorf("got %v", err)
	}
	none := quickOptions()
	none.TLS.HostsDir = writeHosts(t, m.up.Host(), "capabilities = [\"pull\"]\n")
	if _, err := openImage(context.Background(), m.up.Ref(t), none); err == nil ||
		!strings.Contains(err.Error(), "capability") {
		t.Errorf("nobody may resolve tags: got %v", err)
	}
}

// TestHeadersOnRedirect: the headers of hosts.toml stay at their host.
func TestHeadersOnRedirect(t *testing.T) {
	p := registrytest.Layer{Content: []byte("content")}
	m := withMirror(t, "", p)
	m.options.TLS.HostsDir = writeHosts(t, m.up.Host(),
		"[host.\""+m.mirror.URL+"\".header]\nx-mirror = [\"SECRET\", \"2\"]\nauthorization = \"SECRET\"\n")
	var hits atomic.Int64
	store := otherHost(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if fmt.Sprint(r.Header) != strings.ReplaceAll(fmt.Sprint(r.Header), "SECRET", "") {
			t.Errorf("another host got %v", r.Header)
		}
		_, _ = w.Write(p.Stored())
	})
	m.mirror.OnBlob(p, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if len(r.Header["X-Mirror"]) != 2 || r.Header.Get("Authorization") != "SECRET" {
			t.Errorf("the mirror got %v", r.Header)
		}
		http.Redirect(w, r, store+"/x", http.StatusTemporaryRedirect)
		return true
	})
	if m.read(t, mustOpenImage(t, m.up.Ref(t), m.options)) != 0 || hits.Load() != 1 {
		t.Errorf("%d requests at the store", hits.Load())
	}
}

// TestPushThroughHosts: uploads go to the first host that may take them, and to no other.
func TestPushThroughHosts(t *testing.T) {
	for _, tt := range []struct {
		capabilities string
		toMirror     bool
	}{{"[\"pull\", \"resolve\"]", false}, {"[\"push\"]", true}} {
		own, mirror := registrytest.NewDestination(t), registrytest.NewDestination(t)
		o := quickOptions()
		o.TLS.HostsDir = writeHosts(t, strings.TrimPrefix(own.URL, "http://"),
			"[host.\""+mirror.URL+"\"]\ncapabilities = "+tt.capabilities+"\n")
		if err := pushTo(t, own, o, []byte("blob")); err != nil {
			t.Fatal(err)
		}
		if got := mirror.Count("PUT manifest") == 1; got != tt.toMirror ||
			own.Count("PUT manifest") == 1 == tt.toMirror {
			t.Errorf("%s: at the mirror: %v", tt.capabilities, got)
		}
		if tt.toMirror && own.Count("PUT upload") != 0 || !tt.toMirror && mirror.Count("HEAD blob") != 0 {
			t.Errorf("%s: both were asked", tt.capabilities)
		}
	}
}
