package registry

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// quietTLS starts a server with TLS that logs nothing, and returns its authority in PEM.
func quietTLS(t *testing.T, h http.HandlerFunc, mod func(*tls.Config)) (*httptest.Server, []byte) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	if srv.TLS = new(tls.Config); mod != nil {
		mod(srv.TLS)
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
}

// asks asks a client for a manifest n times and returns the last error.
func asks(c *client, n int) error {
	var err error
	for range n {
		var resp *http.Response
		if resp, err = c.get(context.Background(), "manifests/x", nil); err == nil {
			_ = resp.Body.Close()
		}
	}
	return err
}

// TestNeverDowngraded: a host that is not this machine gets no request over plain HTTP,
// whatever it answers and whatever is known of it; nor do the header of its hosts.toml and a
// login.
func TestNeverDowngraded(t *testing.T) {
	var plain atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plain.Add(1)
		fmt.Fprint(w, "{}")
	}))
	defer server.Close()
	_, ca := quietTLS(t, func(http.ResponseWriter, *http.Request) {}, nil)
	caFile := writeConfig(t, filepath.Join(t.TempDir(), "ca.pem"), string(ca))
	for _, tt := range []struct{ name, host, hosts, caFile, says string }{
		{"port", "registry.test:5000", "", "", "--plain-http"},
		{"--ca-file", "registry.test:5000", "", caFile, "--plain-http"},
		{"--ca-file on loopback", "localhost:5000", "", caFile, "--plain-http"},
		{"header", "registry.test:5000", "[header]\nx-secret = \"S3CRET\"\n", "", "--plain-http"},
		{"named https", "registry.test:5000", "server = \"https://registry.test:5000\"\n", "", "hosts.toml"},
		{"named https, on loopback", "localhost:5000",
			"server = \"https://localhost:5000\"\n[header]\nx-secret = \"S3CRET\"\n", "", "hosts.toml"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := quickOptions()
			o.Login.Getenv, o.TLS.CAFile = registrytest.Env("OCI_BEARER", "S3CRET"), tt.caFile
			if tt.hosts != "" {
				o.TLS.HostsDir = writeHosts(t, tt.host, tt.hosts)
			}
			c, _, err := dialTo(t, tt.host+"/a", server.Listener.Addr().String(), o, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = asks(c, 2)
			if !errors.Is(err, ErrRegistry) ||
				!strings.Contains(err.Error(), "answered with plain HTTP") ||
				!strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want ErrRegistry with %q", err, tt.says)
			}
			if n := plain.Swap(0); n != 0 {
				t.Errorf("%d requests over plain HTTP", n)
			}
		})
	}
}

// TestNamedPlain: a host that hosts.toml names as http is asked so, elsewhere without a login.
func TestNamedPlain(t *testing.T) {
	var got atomic.Pointer[http.Header]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(&r.Header)
		fmt.Fprint(w, "{}")
	}))
	defer server.Close()
	o := quickOptions()
	o.Login.Getenv = registrytest.Env("OCI_BEARER", "S3CRET")
	o.TLS.HostsDir = writeHosts(t, "registry.test:5000",
		"server = \"http://registry.test:5000\"\n[header]\nx-site = \"berlin\"\n")
	c, _, err := dialTo(t, "registry.test:5000/a", server.Listener.Addr().String(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := asks(c, 1); err != nil {
		t.Fatal(err)
	}
	if h := *got.Load(); h.Get("X-Site") != "berlin" || h.Get("Authorization") != "" {
		t.Errorf("got %v", h)
	}
}

// TestNoDowngradeAfterTLS: a registry on this machine that once answered over TLS is not asked
// over plain HTTP again.
func TestNoDowngradeAfterTLS(t *testing.T) {
	var plain atomic.Int64
	for _, code := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusNotFound} {
		secure, _ := quietTLS(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			w.WriteHeader(code)
		}, nil)
		open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { plain.Add(1) }))
		defer open.Close()
		to := secure.Listener.Addr().String()
		var moved atomic.Bool
		c, _ := elsewhere(t, "localhost:5000/a", to, quickOptions(), func(tr *http.Transport) {
			tr.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			tr.TLSClientConfig.ServerName = "example.com"
			tr.DisableKeepAlives = true
			tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				addr := to
				if moved.Load() {
					addr = open.Listener.Addr().String()
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
		})
		_ = asks(c, 1)
		moved.Store(true)
		err := asks(c, 2)
		if err == nil || !strings.Contains(err.Error(), "answered with plain HTTP") || plain.Load() != 0 {
			t.Errorf("after %d over TLS: got %v, %d requests over plain HTTP", code, err, plain.Swap(0))
		}
	}
}

// TestLoopbackTLS: what a registry with TLS on this machine says counts, not that it refused HTTP.
func TestLoopbackTLS(t *testing.T) {
	trust := func(srv *httptest.Server) func(*http.Transport) {
		return func(tr *http.Transport) {
			own := tr.TLSClientConfig.GetClientCertificate
			tr.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			tr.TLSClientConfig.ServerName, tr.TLSClientConfig.GetClientCertificate = "example.com", own
		}
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	challenge := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", s)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		mod  func(*tls.Config)
		kind error
		says string
	}{
		{"a login is wanted", challenge("Basic realm=x"), nil, ErrDenied, "docker login"},
		{"a token is wanted, from nowhere", challenge("Bearer"), nil, ErrDenied, "no token server"},
		{"a token is wanted, and its server is down",
			challenge(`Bearer realm="https://` + dead.Addr().String() + `/t"`), nil, ErrRegistry, "refused"},
		{"a client certificate is wanted", challenge(""),
			func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, ErrRegistry, "--client-cert"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, _ := quietTLS(t, tt.h, tt.mod)
			c, _, err := dialTo(t, "localhost:5000/a", srv.Listener.Addr().String(), quickOptions(),
				func(tr *transport) func(string) {
					base := tr.base.(*http.Transport)
					trust(srv)(base)
					base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
						if addr != dead.Addr().String() {
							addr = srv.Listener.Addr().String()
						}
						return new(net.Dialer).DialContext(ctx, network, addr)
					}
					return func(string) {}
				})
			if err != nil {
				t.Fatal(err)
			}
			err = asks(c, 1)
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) ||
				strings.Contains(err.Error(), "400") {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
}
