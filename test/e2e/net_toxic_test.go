package e2e

import (
	"strings"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// toxic starts a proxy before a registry.
func toxic(t *testing.T, upstream string) *toxiproxy.Proxy {
	t.Helper()
	srv := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(srv, "registry", "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

// TestToxics: what networks do to bytes under way. With each toxic the read is right, or EIO within
// the bound; once it is gone the same mount reads.
func TestToxics(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, toxic string
		works       bool
		most        int // requests for the file
	}{
		{"latency", `{"name":"t","type":"latency","stream":"downstream","attributes":{"latency":150,"jitter":50}}`, true, 1},
		{"latency of requests", `{"name":"t","type":"latency","stream":"upstream","attributes":{"latency":150}}`, true, 1},
		{"bandwidth", `{"name":"t","type":"bandwidth","stream":"downstream","attributes":{"rate":1000}}`, true, 1},
		{"slow close", `{"name":"t","type":"slow_close","stream":"downstream","attributes":{"delay":1000}}`, true, 1},
		{"sliced", `{"name":"t","type":"slicer","stream":"downstream","attributes":{"average_size":5000,"size_variation":1000,"delay":100}}`, true, 1},
		{"silence", `{"name":"t","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`, false, 5},
		{"silence of requests", `{"name":"t","type":"timeout","stream":"upstream","attributes":{"timeout":0}}`, false, 0},
		{"closed after a while",
			`{"name":"t","type":"timeout","stream":"downstream","attributes":{"timeout":200}}`, false, 7},
		{"reset", `{"name":"t","type":"reset_peer","stream":"downstream","attributes":{"timeout":0}}`, false, 7},
		{"reset after a while", `{"name":"t","type":"reset_peer","stream":"downstream","attributes":{"timeout":300}}`, false, 7},
		{"cut after 1 MB", `{"name":"t","type":"limit_data","stream":"downstream","attributes":{"bytes":1000000}}`, true, 4},
		{"cut after 10 kB", `{"name":"t","type":"limit_data","stream":"downstream","attributes":{"bytes":10000}}`, false, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), failingImage(t)
			ref, srv, wire := e.Push(img), e.Registry(), img.WireOf("world/fs/f")
			p := toxic(t, srv.Host())
			ref = strings.Replace(ref, srv.Host(), p.Listen, 1)
			m := e.Mount(ref, "--stall-timeout", "2s")
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(tt.toxic)); err != nil {
				t.Fatal(err)
			}
			r := e.Sh(`sha256sum "$1"`, m.Path("world/fs/f"))
			right := strings.HasPrefix(r.Stdout, img.Digest("world/fs/f")[7:])
			switch {
			case tt.works && (r.Code != 0 || !right):
				t.Errorf("the read failed: %v\n%s", r, e.Logs())
			case !tt.works && (r.Code == 0 || !strings.Contains(r.Stderr, "Input/output error")):
				t.Errorf("the read did not fail: %v", r)
			}
			if n := srv.Gets(faultreg.Blob)[wire]; n > tt.most {
				t.Errorf("%d requests for the file, want at most %d", n, tt.most)
			}
			if err := p.Toxics.RemoveToxic(t.Context(), "t"); err != nil {
				t.Fatal(err)
			}
			e.Run("cache", "clear")
			harness.Eventually(t, time.Minute, "a read that works", func() bool {
				data, err := m.ReadErr("world/fs/f")
				return err == nil && harness.SHA256(data) == img.Digest("world/fs/f")[7:]
			})
		})
	}
}

// TestRegistryGoesAndComes: a cold read while the registry is gone is EIO within the bound; once it
// is back, the same mount reads.
func TestRegistryGoesAndComes(t *testing.T) {
	t.Parallel()
	e, img := harness.New(t, ""), failingImage(t)
	ref, srv := e.Push(img), e.Registry()
	p := toxic(t, srv.Host())
	m := e.Mount(strings.Replace(ref, srv.Host(), p.Listen, 1))
	p.Stop()
	e.Command("cat", m.Path("world/fs/f")).Wait(harness.Limit).Want(t, 1, "input/output error")
	if !strings.Contains(e.Logs(), "refused") {
		t.Errorf("the log does not say why:\n%s", e.Logs())
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, time.Minute, "a read that works", func() bool {
		data, err := m.ReadErr("world/fs/f")
		return err == nil && harness.SHA256(data) == img.Digest("world/fs/f")[7:]
	})
}
