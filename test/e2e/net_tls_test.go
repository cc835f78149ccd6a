package e2e

import (
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
)

// TestPrivateAuthority: a registry whose certificate a private authority signed is believed by
// every way in which that authority is named, and by none other; nothing is ever asked over plain
// HTTP instead.
func TestPrivateAuthority(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		set  func(s *site) []string // options
		says string                 // "": it works
		code int
	}{
		{"unknown", func(*site) []string { return nil }, "unknown authority", 5},
		{"SSL_CERT_FILE", func(s *site) []string { s.e.Set("SSL_CERT_FILE", s.file("ca.pem", s.ca.PEM)); return nil }, "", 0},
		{"SSL_CERT_DIR", func(s *site) []string {
			s.e.MakeDir("certs")
			s.file("certs/ca.pem", s.ca.PEM)
			s.e.Set("SSL_CERT_DIR", s.e.Path("certs"))
			return nil
		}, "", 0},
		{"option", func(s *site) []string { return []string{"--ca-file", s.file("ca.pem", s.ca.PEM)} }, "", 0},
		{"docker's folder", func(s *site) []string {
			s.etcFile("docker/certs.d/registry.test:5000/ca.crt", s.ca.PEM)
			return nil
		}, "", 0},
		{"containerd's folder", func(s *site) []string {
			s.etcFile("containerd/certs.d/registry.test_5000_/ca.crt", s.ca.PEM)
			return nil
		}, "", 0},
		{"hosts.toml", func(s *site) []string {
			s.etcFile("containerd/certs.d/_default/hosts.toml", []byte("ca = \"own.pem\"\n"))
			s.etcFile("containerd/certs.d/_default/own.pem", s.ca.PEM)
			return nil
		}, "", 0},
		{"another hosts folder", func(s *site) []string {
			s.etcFile("elsewhere/registry.test:5000/ca.crt", s.ca.PEM)
			return []string{"--hosts-dir", "/etc/elsewhere"}
		}, "", 0},
		{"no file", func(s *site) []string { return []string{"--ca-file", "/none.pem"} },
			"does not exist", 1},
		{"no PEM", func(s *site) []string { return []string{"--ca-file", s.file("ca.pem", []byte("hello"))} }, "no certificate", 1},
		{"broken hosts.toml", func(s *site) []string {
			s.etcFile("containerd/certs.d/_default/hosts.toml", []byte("\nca = own.pem\n"))
			return nil
		}, "hosts.toml: line 2", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			srv, ref := s.registry("5000", s.conf("registry.test"))
			options := append(tt.set(s), "--stall-timeout", "10s", ref)
			if tt.says == "" {
				s.reads(options...)
				for _, x := range srv.Log() {
					if x.Status/100 != 2 {
						t.Errorf("%s %s: %d", x.Method, x.Path, x.Status)
					}
				}
				return
			}
			s.fails(tt.code, []string{tt.says}, options...)
			if log := srv.Log(); len(log) != 0 {
				t.Errorf("%d requests arrived, the first %+v", len(log), log[0])
			}
		})
	}
}

// TestClientCertificate: a registry that wants one.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	users, err := faultreg.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := users.Client()
	if err != nil {
		t.Fatal(err)
	}
	strangeCert, strangeKey, err := s.ca.Client()
	if err != nil {
		t.Fatal(err)
	}
	conf := s.conf("registry.test")
	users.Demand(conf)
	srv, ref := s.registry("5000", conf)
	ca := []string{"--ca-file", s.file("ca.pem", s.ca.PEM)}
	certFile, keyFile := s.file("user.cert", cert), s.file("user.key", key)
	s.fails(5, []string{"registry.test:5000", "client certificate", "--client-cert"}, append(ca, ref)...)
	s.fails(5, []string{"registry.test:5000", "none of the authorities"},
		append(ca, "--client-cert", s.file("strange.pem", append(strangeCert, strangeKey...)), ref)...)
	s.fails(1, []string{"--client-cert"}, append(ca, "--client-key", keyFile, ref)...)
	s.fails(1, []string{"user.cert"}, append(ca, "--client-cert", certFile, ref)...)
	if n := len(srv.Log()); n != 0 {
		t.Errorf("%d requests arrived without a certificate", n)
	}
	s.reads(append(ca, "--client-cert", certFile, "--client-key", keyFile, ref)...)
	// A mount reads with it, also what is asked for when its working folder has changed.
	s.e.Run("cache", "clear").Want(t, 0)
	dir := s.e.MountDir()
	s.e.Sh(`cd "$(dirname "$4")" && "$1" --ca-file ca.pem --client-cert user.cert --client-key user.key "$2" "$3" && sha256sum "$3/world/fs/f" && "$1" umount "$3"`,
		s.e.Bin, ref, dir, certFile).Want(t, 0)
}

// TestClientCertificateFolders: where Docker and containerd keep them.
func TestClientCertificateFolders(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"docker/certs.d/registry.test:5000/",
		"containerd/certs.d/registry.test_5000_/", "containerd/certs.d/_default/"} {
		s := newSite(t)
		cert, key, err := s.ca.Client()
		if err != nil {
			t.Fatal(err)
		}
		conf := s.conf("registry.test")
		s.ca.Demand(conf)
		_, ref := s.registry("5000", conf)
		s.etcFile(folder+"ca.crt", s.ca.PEM)
		s.etcFile(folder+"u.cert", cert)
		s.etcFile(folder+"u.key", key)
		s.reads(ref)
	}
}

// TestTLSWithoutTLS: a port that speaks plain HTTP gets not one request, with or without an
// authority, until
// --plain-http or hosts.toml allows it.
func TestTLSWithoutTLS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	srv, ref := s.registry("5000", nil)
	s.e.Set("OCI_USERNAME", "someone")
	s.e.Set("OCI_PASSWORD", "SECRET-PASSWORD")
	words := []string{"registry.test:5000", "answered with plain HTTP", "--plain-http"}
	source := "oci-layout:" + s.e.CopyFixture("layout") + ":minimal"
	for _, options := range [][]string{nil, {"--ca-file", s.file("ca.pem", s.ca.PEM)}} {
		if said := s.fails(5, words, append(options, ref)...); containsAll(said, "SECRET") {
			t.Errorf("the password is shown: %s", said)
		}
		s.e.Run(append(append([]string{"push"}, options...), source, ref)...).Want(t, 5, words...)
	}
	if log := srv.Log(); len(log) != 0 {
		t.Errorf("%d requests over plain HTTP, the first %+v", len(log), log[0])
	}
	s.reads("--plain-http", ref)
	s.e.Run("cache", "clear").Want(t, 0)
	s.e.MakeDir("hosts")
	s.e.MakeDir("hosts/_default")
	s.file("hosts/_default/hosts.toml", []byte("server = \"http://registry.test:5000\"\n"))
	before := len(srv.Log())
	s.reads("--hosts-dir", s.e.Path("hosts"), ref)
	for _, x := range srv.Log()[before:] {
		if x.Header.Get("Authorization") != "" {
			t.Errorf("credentials went over plain HTTP: %s %s", x.Method, x.Path)
		}
	}
}

// TestLoopbackWithTLS: what a registry with TLS on this machine says counts, not that it
// refused HTTP.
func TestLoopbackWithTLS(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	srv := s.serve(faultreg.Options{Addr: "127.0.0.1:5000", TLS: s.conf("127.0.0.1")})
	srv.Serve(s.img, "team/app", "v1")
	s.e.Set("SSL_CERT_FILE", s.file("ca.pem", s.ca.PEM))
	s.reads("127.0.0.1:5000/team/app:v1")
	s.e.Run("cache", "clear").Want(t, 0)
	srv.On(faultreg.Match{}, faultreg.Answer(401, "", "WWW-Authenticate", "Basic realm=x"))
	if said := s.fails(5, []string{"401", "docker login"},
		"127.0.0.1:5000/team/app:v1"); containsAll(said, "400") {
		t.Errorf("the refusal of HTTP is shown: %s", said)
	}
}
