package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// elsewhere opens an image whose registry has a name that is not this machine's: every dial ends at
// addr.
func elsewhere(t *testing.T, ref, addr string, o Options, mod func(*http.Transport)) (*client, *[]string) {
	t.Helper()
	warnings := new([]string)
	c, _, err := dialTo(t, ref, addr, o, func(tr *transport) func(string) {
		if mod != nil {
			mod(tr.base.(*http.Transport))
		}
		return func(s string) { *warnings = append(*warnings, s) }
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, warnings
}

// dialTo makes a client all of whose dials end at addr; prepare, if any, gets the transport first
// and returns the function for its warnings.
func dialTo(t *testing.T, ref, addr string, o Options,
	prepare func(*transport) func(string)) (*client, *transport, error) {
	t.Helper()
	o = o.WithDefaults()
	tr := newTransport(o, new(artifact.Counters))
	base := tr.base.(*http.Transport)
	base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	warn := func(string) {}
	if prepare != nil {
		warn = prepare(tr)
	}
	c, err := newClient(registrytest.Ref(t, ref), o, tr, warn)
	t.Cleanup(tr.CloseIdleConnections)
	return c, tr, err
}

// TestSchemes says which scheme a registry is spoken to with, and what is sent along.
func TestSchemes(t *testing.T) {
	var sawAuth atomic.Bool
	var sent atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		if r.Header.Get("Authorization") != "" {
			sawAuth.Store(true)
		}
		fmt.Fprint(w, "{}")
	})
	plain, tls := httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	tls.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	tls.StartTLS()
	defer plain.Close()
	defer tls.Close()
	trust := func(base *http.Transport) {
		base.TLSClientConfig = tls.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	}
	trustAny := func(base *http.Transport) { trust(base); base.TLSClientConfig.ServerName = "example.com" }
	_, plainPort, _ := net.SplitHostPort(plain.Listener.Addr().String())
	tests := []struct {
		name, host string
		server     *httptest.Server
		plainHTTP  bool
		mod        func(*http.Transport)
		scheme     string // "": an error
		auth       bool
		text       string // of warning or error
	}{
		{"loopback, http", "localhost:5000", plain, false, nil, "http", true, ""},
		{"loopback, https", "localhost:5000", tls, false, trustAny, "https", true, ""},
		{"loopback, https that nobody trusts", "localhost:5000", tls, false, nil, "", false, "certificate"},
		{"loopback, 443", "localhost:443", plain, false, nil, "", false, "plain HTTP"},
		{"name, https", "registry.test", tls, false, trustAny, "https", true, ""},
		{"name, http", "registry.test", plain, false, nil, "", false, "plain HTTP"},
		{"name, 443, http", "registry.test:443", plain, false, nil, "", false, "plain HTTP"},
		{"port, https", "registry.test:5000", tls, false, trustAny, "https", true, ""},
		{"port, http", "registry.test:5000", plain, false, nil, "", false,
			"answered with plain HTTP, not TLS; --plain-http"},
		{"loopback, 443, http, allowed", "localhost:443", plain, true, nil, "http", true, ""},
		{"loopback, https, http allowed", "localhost:5000", tls, true, trustAny, "https", true, ""},
		{"port, http, allowed", "registry.test:5000", plain, true, nil, "http", true, ""},
		{"name, http, allowed", "registry.test", plain, true, nil, "http", true, ""},
		{"port, https that nobody trusts", "registry.test:5000", tls, false, nil, "", false, "certificate"},
		{"evil name", "127.0.0.1.evil.example:" + plainPort, plain, false, nil, "", false, "--plain-http"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sawAuth.Store(false)
			o := quickOptions()
			o.PlainHTTP = tt.plainHTTP
			o.Login.Getenv = registrytest.Env("OCI_BEARER", "tok")
			c, warnings := elsewhere(t, tt.host+"/a", tt.server.Listener.Addr().String(), o, tt.mod)
			for range 2 {
				resp, err := c.get(context.Background(), "manifests/x", nil)
				if (err == nil) != (tt.scheme != "") {
					t.Fatalf("got %v, want scheme %q", err, tt.scheme)
				}
				if err != nil {
					if !errors.Is(err, ErrRegistry) || !strings.Contains(err.Error(), tt.text) {
						t.Errorf("got %v, want ErrRegistry with %q", err, tt.text)
					}
					continue
				}
				if resp.Request.URL.Scheme != tt.scheme {
					t.Errorf("got %s, want %s", resp.Request.URL.Scheme, tt.scheme)
				}
				_ = resp.Body.Close()
			}
			if sawAuth.Load() != tt.auth {
				t.Errorf("credentials sent: %v, want %v", sawAuth.Load(), tt.auth)
			}
			if got := strings.Join(*warnings, "\n"); tt.scheme != "" &&
				!strings.Contains(got, tt.text) || tt.text == "" && got != "" {
				t.Errorf("warnings: got %q", got)
			}
		})
	}
}

// TestNoFallback: resets and silence on the TLS dial never lead to plain HTTP.
func TestNoFallback(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	var plain atomic.Int64
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 3)
			_, _ = conn.Read(b)
			if string(b) == "GET" {
				plain.Add(1)
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}()
	c, _ := elsewhere(t, "registry.test:5000/a", ln.Addr().String(), quickOptions(), nil)
	if _, err := c.get(context.Background(), "manifests/x", nil); !errors.Is(err, ErrRegistry) ||
		plain.Load() != 0 {
		t.Errorf("got %v and %d requests over plain HTTP", err, plain.Load())
	}
}

// TestRealm: only a registry on this machine may send the token request to this machine.
func TestRealm(t *testing.T) {
	var asked atomic.Int64
	token := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, `{"token":"t"}`)
	}))
	defer token.Close()
	reg := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+token.URL+`/token?leak=me"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer reg.Close()
	o := quickOptions()
	o.PlainHTTP = true
	c, _ := elsewhere(t, "registry.test:5000/a", reg.Listener.Addr().String(), o, nil)
	_, err := c.get(context.Background(), "manifests/x", nil)
	if !errors.Is(err, ErrDenied) || asked.Load() != 0 || strings.Contains(err.Error(), "leak") {
		t.Errorf("elsewhere: got %v, %d token requests", err, asked.Load())
	}
	c, _ = elsewhere(t, "127.0.0.2:5000/a", reg.Listener.Addr().String(), o, func(b *http.Transport) {
		b.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasPrefix(addr, "127.0.0.2:") {
				addr = reg.Listener.Addr().String()
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	})
	if resp, err := c.get(context.Background(), "manifests/x", nil); err != nil || asked.Load() != 1 {
		t.Errorf("loopback: got %v, %d token requests", err, asked.Load())
	} else {
		_ = resp.Body.Close()
	}
}

// get asks for /v2/<repo>/<path>. Any answer but 200, 206 and 416 is an error.
func (c *client) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	return c.do(ctx, call{method: http.MethodGet, path: path, header: header})
}
