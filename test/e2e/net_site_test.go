package e2e

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// The addresses of a site, which stand for other machines.
const (
	registryAddr = "192.0.2.1"
	storeAddr    = "192.0.2.2"
	proxyAddr    = "192.0.2.3"
	mirrorAddr   = "192.0.2.4"
)

// site is a network of its own with names: registry.test, store.test, proxy.test and mirror.test.
// Commands of its Env run there. Go takes a proxy for none of this machine's own addresses, and
// credentials may go to them over plain HTTP, so what is tested of these needs names.
type site struct {
	t   *testing.T
	e   *harness.Env
	net *harness.Net
	ca  *faultreg.Authority
	img *imgbuild.Image
	etc string // what lies over /etc
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, e: harness.New(t, ""), img: failingImage(t)}
	s.etc = s.e.MakeDir("etc")
	s.net = harness.Names(t, map[string]string{
		registryAddr: "registry.test", storeAddr: "store.test", proxyAddr: "proxy.test",
		mirrorAddr: "mirror.test",
	}, s.etc)
	s.e.Prefix = s.net.Prefix()
	var err error
	if s.ca, err = faultreg.NewAuthority(); err != nil {
		t.Fatal(err)
	}
	return s
}

// conf is the TLS of a server with a name of the site.
func (s *site) conf(names ...string) *tls.Config {
	s.t.Helper()
	conf, err := s.ca.Server(names...)
	if err != nil {
		s.t.Fatal(err)
	}
	return conf
}

// serve starts a registry in the site, which the test's end closes.
func (s *site) serve(o faultreg.Options) *faultreg.Server {
	s.t.Helper()
	o.Listen = func(addr string) (net.Listener, error) { return s.net.Listen(addr) }
	srv, err := faultreg.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { srv.Close() })
	return srv
}

// registry starts registry.test with the site's image over TLS, on a port of its own or 443.
func (s *site) registry(port string, conf *tls.Config) (srv *faultreg.Server, ref string) {
	s.t.Helper()
	srv = s.serve(faultreg.Options{Addr: registryAddr + ":" + port, TLS: conf})
	srv.Serve(s.img, "team/app", "v1")
	return srv, "registry.test:" + port + "/team/app:v1"
}

// file puts a file below the Env's folder.
func (s *site) file(name string, data []byte) string { return s.e.WriteFile(name, data, 0o600) }

// etcFile puts a file below what lies over /etc.
func (s *site) etcFile(name string, data []byte) {
	s.t.Helper()
	r := s.e.Sh(`mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"`, s.etc+"/"+name, string(data))
	r.Want(s.t, 0)
}

// reads fails the test unless cat gives the image's file; it returns what was said.
func (s *site) reads(args ...string) string {
	s.t.Helper()
	r := s.e.Sh(`bin=$1; shift; "$bin" cat -v "$@" world/fs/f | sha256sum`,
		append([]string{s.e.Bin}, args...)...).Want(s.t, 0)
	if !strings.HasPrefix(r.Stdout, s.img.Digest("world/fs/f")[7:]) {
		s.t.Errorf("other bytes: %v", r)
	}
	return r.Stderr
}

// fails fails the test unless cat ends with code and these words, and gives no byte.
func (s *site) fails(code int, words []string, args ...string) string {
	s.t.Helper()
	r := s.e.Sh(`bin=$1; shift; "$bin" cat -v "$@" world/fs/f | wc -c`,
		append([]string{s.e.Bin}, args...)...).Want(s.t, code, words...)
	if r.Stdout != "0\n" {
		s.t.Errorf("a failed command gave bytes: %v", r)
	}
	return r.Stderr
}

// containsAll says that a text has all the words.
func containsAll(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}
