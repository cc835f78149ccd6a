package registry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	var a authority
	cert, key := a.issue(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	return authority{a.cert, pair.PrivateKey.(*ecdsa.PrivateKey), cert}
}

// issue makes a certificate and its key, in PEM; by itself when there is no authority yet.
func (a authority) issue(t *testing.T, form *x509.Certificate) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form.SerialNumber = big.NewInt(time.Now().UnixNano())
	form.Subject = pkix.Name{CommonName: form.SerialNumber.String()}
	form.NotBefore, form.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = form, private
	}
	der, err := x509.CreateCertificate(rand.Reader, form, parent, &private.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func (a authority) server(t *testing.T, names ...string) (cert, key string) {
	return a.issue(t, &x509.Certificate{DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0,
			1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

func (a authority) client(t *testing.T) (cert, key string) {
	return a.issue(t, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// tlsServer answers with {} for registry.test, by HTTP/2 where it may; clients issued the
// certificates that it accepts from clients; nil: any client may connect.
func tlsServer(t *testing.T, a authority, clients *authority, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	cert, key := a.server(t, "registry.test")
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		s.TLS.ClientCAs.AddCert(clients.cert)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestCertificates: every way in which a private authority and client certificates are given.
func TestCertificates(t *testing.T) {
	a, users, stranger := newAuthority(t), newAuthority(t), newAuthority(t)
	cert, key := users.client(t)
	badCert, badKey := stranger.client(t)
	dir := t.TempDir()
	put := func(name, text string) string { return writeConfig(t, filepath.Join(dir, name), text) }
	caFile, certFile, keyFile := put("ca.pem", a.pem), put("user.cert", cert), put("user.key", key)
	both := put("both.pem", cert+key)
	empty := put("empty.pem", "no PEM\n")
	docker := func(o *Options) { o.TLS.DockerDir = filepath.Join(dir, "docker") }
	put("docker/registry.test:5000/ca.crt", a.pem)
	put("docker/registry.test:5000/user.cert", cert)
	put("docker/registry.test:5000/user.key", key)
	put("docker/registry.test:5000/README", "nothing")
	put("keyless/registry.test:5000/user.cert", cert)
	put("containerd/registry.test:5000/ca.crt", a.pem)
	put("containerd/registry.test:5000/user.cert", cert)
	put("containerd/registry.test:5000/user.key", key)
	put("toml/registry.test:5000/hosts.toml",
		"ca = \"../../ca.pem\"\nclient = [[\"../../bad.pem\"], [\"../../user.cert\", \"../../user.key\"]]\n")
	put("bad.pem", badCert+badKey)
	put("skip/registry.test:5000/hosts.toml", "skip_verify = true\nclient = \""+both+"\"\n")
	tests := []struct {
		name    string
		set     func(o *Options)
		clients bool
		want    string // in the error; "": none
	}{
		{"nothing", func(*Options) {}, false, "certificate signed by unknown authority"},
		{"ca file", func(o *Options) { o.TLS.CAFile = caFile }, false, ""},
		{"another ca file", func(o *Options) { o.TLS.CAFile = put("other.pem", stranger.pem) },
			false, "unknown authority"},
		{"ca file that is none", func(o *Options) { o.TLS.CAFile = empty }, false, "no certificate"},
		{"ca file that is not there", func(o *Options) { o.TLS.CAFile = dir + "/none" }, false,
			"does not exist"},
		{"ca file that is a folder", func(o *Options) { o.TLS.CAFile = dir }, false, "is a directory"},
		{"no client certificate", func(o *Options) { o.TLS.CAFile = caFile }, true, "--client-cert"},
		{"client certificate", func(o *Options) {
			o.TLS.CAFile, o.TLS.ClientCert, o.TLS.ClientKey = caFile, certFile, keyFile
		}, true, ""},
		{"client certificate in one file",
			func(o *Options) { o.TLS.CAFile, o.TLS.ClientCert = caFile, both }, true, ""},
		{"client certificate, unasked",
			func(o *Options) { o.TLS.CAFile, o.TLS.ClientCert = caFile, both }, false, ""},
		{"client certificate of a stranger",
			func(o *Options) { o.TLS.CAFile, o.TLS.ClientCert = caFile, dir+"/bad.pem" }, true,
			"none of the authorities"},
		{"client certificate without its key",
			func(o *Options) { o.TLS.CAFile, o.TLS.ClientCert = caFile, certFile }, true, "key"},
		{"client certificate with another key",
			func(o *Options) { o.TLS.ClientCert, o.TLS.ClientKey = certFile, dir+"/bad.pem" }, true,
			"does not match"},
		{"docker's folder", docker, true, ""},
		{"docker's folder without the key", func(o *Options) { o.TLS.DockerDir = dir + "/keyless" },
			true, "user.key is missing"},
		{"containerd's folder", func(o *Options) { o.TLS.HostsDir = dir + "/containerd" }, true, ""},
		{"hosts.toml", func(o *Options) { o.TLS.HostsDir = dir + "/toml" }, true, ""},
		{"hosts.toml, skip_verify", func(o *Options) { o.TLS.HostsDir = dir + "/skip" }, true, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var clients *authority
			if tt.clients {
				clients = &users
			}
			var asked atomic.Int64
			s := tlsServer(t, a, clients, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.ProtoMajor != 2 {
					t.Errorf("spoke %s, not HTTP/2", r.Proto)
				}
				fmt.Fprint(w, "{}")
			})
			o := quickOptions()
			o.TLS.DockerDir = t.TempDir()
			tt.set(&o)
			err := getOnce(t, "registry.test:5000/a", s.Listener.Addr().String(), o)
			if tt.want == "" && err != nil ||
				tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if want := int64(1); tt.want == "" && asked.Load() != want || tt.want != "" && asked.Load() != 0 {
				t.Errorf("%d requests", asked.Load())
			}
			if err != nil && retriable(err) && !errors.Is(err, ErrConfig) && !tt.clients {
				t.Errorf("%v would be tried again", err)
			}
		})
	}
}

// getOnce sends one request to a registry whose every dial ends at addr.
func getOnce(t *testing.T, ref, addr string, o Options) error {
	t.Helper()
	c, _, err := dialTo(t, ref, addr, o, nil)
	if err != nil {
		return err
	}
	resp, err := c.get(context.Background(), "manifests/x", nil)
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

// TestNewClientCertificate: a certificate that is replaced on disk is used at the next handshake.
func TestNewClientCertificate(t *testing.T) {
	a, users := newAuthority(t), newAuthority(t)
	var seen []string
	s := tlsServer(t, a, &users, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.TLS.PeerCertificates[0].SerialNumber.String())
		fmt.Fprint(w, "{}")
	})
	o := quickOptions()
	cert, key := users.client(t)
	o.TLS.CAFile = writeConfig(t, filepath.Join(t.TempDir(), "ca.pem"), a.pem)
	o.TLS.ClientCert = writeConfig(t, filepath.Join(t.TempDir(), "user.pem"), cert+key)
	c, tr, err := dialTo(t, "registry.test:5000/a", s.Listener.Addr().String(), o, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		resp, err := c.get(context.Background(), "manifests/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		cert, key = users.client(t)
		writeConfig(t, o.TLS.ClientCert, cert+key)
		tr.CloseIdleConnections()
	}
	if len(seen) != 2 || seen[0] == seen[1] {
		t.Errorf("certificates %v", seen)
	}
	if err := os.Remove(o.TLS.ClientCert); err != nil {
		t.Fatal(err)
	}
	if _, err := c.get(context.Background(), "manifests/x", nil); err == nil ||
		!strings.Contains(err.Error(), "user.pem") || retriable(err) {
		t.Errorf("without its file: %v", err)
	}
}

// TestSkipVerify: a registry whose certificate is not checked gets no credentials.
func TestSkipVerify(t *testing.T) {
	var sawAuth atomic.Bool
	s := tlsServer(t, newAuthority(t), nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			sawAuth.Store(true)
		}
	})
	for _, plain := range []bool{false, true} {
		o := quickOptions()
		o.PlainHTTP, o.Login.Getenv = plain, registrytest.Env("OCI_BEARER", "tok")
		o.TLS.HostsDir = writeHosts(t, "registry.test",
			"server = \"https://registry.test:443\"\nskip_verify = true\n")
		if err := getOnce(t, "registry.test/a", s.Listener.Addr().String(), o); err != nil ||
			sawAuth.Load() != plain {
			t.Errorf("--plain-http %v: %v, credentials sent: %v", plain, err, sawAuth.Load())
		}
	}
}

// TestUserAgent: every request names the program and its version.
func TestUserAgent(t *testing.T) {
	f := registrytest.NewServer(t)
	f.Serve(t)
	o := quickOptions()
	o.Version = "1.2.3"
	mustOpenImage(t, f.Ref(t), o)
	for _, r := range f.Requests() {
		if got := r.Header.Get("User-Agent"); got != "pfmount/1.2.3" ||
			r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("User-Agent %q, Accept-Encoding %q", got, r.Header.Get("Accept-Encoding"))
		}
	}
}
