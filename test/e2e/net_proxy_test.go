package e2e

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
)

// proxy counts CONNECT requests and passes on those with the right password.
type proxy struct {
	to      string // where registry.test answers for the proxy, which is not in the site
	connect atomic.Int64
	denied  atomic.Int64
	other   atomic.Int64
}

const proxyPassword = "SECRET-PROXY"

func startProxy(s *site, to string) *proxy {
	s.t.Helper()
	l, err := s.net.Listen(proxyAddr + ":3128")
	if err != nil {
		s.t.Fatal(err)
	}
	p := &proxy{to: to}
	srv := &http.Server{Handler: p}
	s.t.Cleanup(func() { srv.Close() })
	go srv.Serve(l)
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("someone:"+proxyPassword))
	switch {
	case r.Header.Get("Proxy-Authorization") != want:
		p.denied.Add(1)
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	case r.Method != http.MethodConnect:
		p.other.Add(1)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.connect.Add(1)
	to, err := net.Dial("tcp", p.to)
	if err != nil || r.Host != "registry.test:443" {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	rc.Flush()
	from, buf, err := rc.Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	go func() {
		io.Copy(to, buf)
		to.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(from, to)
}

// TestProxy: HTTPS_PROXY is used, with its credentials, and NO_PROXY spares a host; its password is
// shown nowhere.
func TestProxy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	srv, _ := s.registry("443", s.conf("registry.test"))
	ref := "registry.test/team/app:v1"
	outside, err := faultreg.New(faultreg.Options{Backend: srv.Backend(), TLS: s.conf("registry.test")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	p := startProxy(s, outside.Host())
	s.e.Set("SSL_CERT_FILE", s.file("ca.pem", s.ca.PEM))
	quiet := func(said string) {
		t.Helper()
		if strings.Contains(said, "SECRET") ||
			strings.Contains(said, base64.StdEncoding.EncodeToString([]byte(proxyPassword))[:8]) {
			t.Errorf("the proxy's password is shown: %s", said)
		}
	}
	s.e.Set("HTTPS_PROXY", "http://someone:"+proxyPassword+"@proxy.test:3128")
	quiet(s.reads(ref))
	if p.connect.Load() == 0 || p.denied.Load() != 0 || p.other.Load() != 0 {
		t.Errorf("%d CONNECT, %d without credentials, %d other", p.connect.Load(), p.denied.Load(),
			p.other.Load())
	}
	for _, no := range []string{"registry.test", ".test", "*", "192.0.2.0/24,registry.test:443"} {
		p.connect.Store(0)
		s.e.Set("NO_PROXY", no)
		s.e.Run("cache", "clear").Want(t, 0)
		quiet(s.reads(ref))
		if p.connect.Load() != 0 {
			t.Errorf("NO_PROXY=%s: %d CONNECT", no, p.connect.Load())
		}
	}
	s.e.Unset("NO_PROXY")
	for _, tt := range []struct{ name, proxy, says string }{
		{"wrong password", "http://someone:SECRET-OTHER@proxy.test:3128", "Proxy Authentication Required"},
		{"nobody listens", "http://someone:SECRET@proxy.test:1", "proxy"},
		{"no such host", "http://someone:SECRET@none.invalid:1", "none.invalid"},
		{"no proxy", "https://someone:SECRET@registry.test:443", ""},
	} {
		s.e.Run("cache", "clear").Want(t, 0)
		s.e.Set("HTTPS_PROXY", tt.proxy)
		quiet(s.fails(5, []string{tt.says}, ref))
	}
}
