package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// hostsToml names a mirror in the site's hosts.toml.
func (s *site) hostsToml(mirror, table string) {
	s.etcFile("containerd/certs.d/registry.test:5000/hosts.toml",
		[]byte("server = \"https://registry.test:5000\"\nca = \"/etc/ca.pem\"\n[host.\""+mirror+"\"]\n"+table))
	s.etcFile("ca.pem", s.ca.PEM)
}

// TestPullThrough: distribution as a pull-through cache of another registry, by hosts.toml. The
// cache fills once; the second machine's read never reaches the registry, not even when that is
// gone; the registry's credentials stay with it.
func TestPullThrough(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	srv, ref := s.registry("5000", s.conf("registry.test"))
	behind, err := faultreg.New(faultreg.Options{Backend: srv.Backend()}) // the same registry, where the cache finds it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { behind.Close() })
	mirror := s.serve(faultreg.Options{Addr: mirrorAddr + ":5001", Mirror: behind.URL()})
	s.hostsToml("http://mirror.test:5001",
		"capabilities = [\"pull\", \"resolve\"]\n[host.\"http://mirror.test:5001\".header]\nx-site = \"berlin\"\n")
	s.e.Set("OCI_USERNAME", "someone")
	s.e.Set("OCI_PASSWORD", "SECRET-PASSWORD")
	wire := s.img.WireOf("world/fs/f")
	for range 3 {
		s.e.Run("cache", "clear").Want(t, 0)
		s.reads(ref)
	}
	if n := srv.Count(faultreg.Match{}); n != 0 {
		t.Errorf("%d requests to the registry, the mirror has all", n)
	}
	if n, m := behind.Gets(faultreg.Blob)[wire], mirror.Gets(faultreg.Blob)[wire]; n != 1 || m != 3 {
		t.Errorf("the file's blob: %d from the registry to the mirror, %d from the mirror, want 1 and 3", n, m)
	}
	for _, x := range mirror.Log() {
		if x.Header.Get("Authorization") != "" || x.Header.Get("X-Site") != "berlin" ||
			x.Query != "ns=registry.test%3A5000" {
			t.Errorf("%s %s?%s to the mirror with %v", x.Method, x.Path, x.Query, x.Header)
		}
	}
	srv.Stop()
	behind.Stop()
	s.e.Run("cache", "clear").Want(t, 0)
	s.reads(ref)
}

// TestMirrorIsNoRegistry: whatever the mirror does, the bytes are right and the registry is asked;
// its credentials never go to the mirror.
func TestMirrorIsNoRegistry(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		fault faultreg.Fault // nil: the port is closed
		says  string
	}{
		{"dead", nil, "refused"},
		{"answers 500", faultreg.Answer(500, "oops"), "500"},
		{"answers 404", faultreg.Answer(404, ""), ""},
		{"wants a login", faultreg.Answer(401, "", "WWW-Authenticate", `Basic realm="x"`), "401"},
		{"wants a token", faultreg.Answer(401, "", "WWW-Authenticate",
			`Bearer realm="http://mirror.test:5001/token",service="x"`), "mirror.test"},
		{"web page", faultreg.Answer(200, "<html>", "Content-Type", "text/html"), "web page"},
		{"drops", faultreg.Drop(), "closed"},
		{"silent", faultreg.NewHold().Fault(), "no byte"},
		{"cuts", faultreg.Cut{Percent: 30, RST: true}.Fault(), ""},
		{"wrong bytes", faultreg.Flip(40), "wrong bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			srv, ref := s.registry("5000", s.conf("registry.test"))
			table := "capabilities = [\"pull\", \"resolve\"]\n"
			if strings.Contains("cuts wrong bytes", tt.name) {
				table = "capabilities = [\"pull\"]\n"
			}
			s.hostsToml("http://mirror.test:5001", table)
			var mirror *faultreg.Server
			if tt.fault != nil {
				mirror = s.serve(faultreg.Options{Addr: mirrorAddr + ":5001", Backend: srv.Backend()})
				mirror.On(faultreg.Match{}, tt.fault)
			}
			s.e.Set("OCI_BEARER", "SECRET-TOKEN")
			said := s.reads("--stall-timeout", "1s", ref)
			if !strings.Contains(said, tt.says) || strings.Contains(said, "SECRET") {
				t.Errorf("no %q, or a secret: %s", tt.says, said)
			}
			if n := srv.Gets(faultreg.Blob)[s.img.WireOf("world/fs/f")]; n != 1 {
				t.Errorf("%d requests to the registry for the file, want 1", n)
			}
			for _, x := range srv.Log() {
				if x.Header.Get("Authorization") != "Bearer SECRET-TOKEN" || x.Query != "" {
					t.Errorf("%s %s?%s with %v to the registry", x.Method, x.Path, x.Query, x.Header)
				}
			}
			if mirror == nil {
				return
			}
			if n := len(mirror.Log()); n == 0 || n > 30 {
				t.Errorf("%d requests to the mirror", n)
			}
			for _, x := range mirror.Log() {
				if strings.Contains(x.Header.Get("Authorization"), "SECRET") {
					t.Errorf("the registry's token went to the mirror: %s %s", x.Method, x.Path)
				}
			}
		})
	}
}

// TestMirrorGoesAndComes: under one mount the mirror goes, the registry stands in, and the mirror
// is used again.
func TestMirrorGoesAndComes(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Fixture(t, "many")
	ref, srv := e.Push(img), e.Registry()
	mirror, err := faultreg.New(faultreg.Options{Addr: "127.0.0.2:0", Backend: srv.Backend()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mirror.Close() })
	e.Sh(`mkdir -p "$1" && printf '[host."%s"]\ncapabilities = ["pull"]\n' "$2" >"$1/hosts.toml"`,
		e.Path("home/hosts/"+srv.Host()), mirror.URL()).Want(t, 0)
	m := e.Mount(ref, "--prefetch=none", "--hosts-dir", e.Path("home/hosts"))
	var files []string
	for _, p := range img.Paths() {
		if strings.HasPrefix(p, "world/fs/") {
			files = append(files, p)
		}
	}
	read := func(n int) {
		t.Helper()
		for _, p := range files[:n] {
			if got := "sha256:" + harness.SHA256(m.Read(p)); got != img.Digest(p) {
				t.Errorf("%s: %s", p, got)
			}
		}
		files = files[n:]
	}
	read(5)
	if n := len(srv.Gets(faultreg.Blob)); n != 0 {
		t.Errorf("%d blobs from the registry while the mirror is well", n)
	}
	mirror.Stop()
	read(20)
	if n := len(srv.Gets(faultreg.Blob)); n < 20 {
		t.Errorf("%d blobs from the registry while the mirror is gone, want 20", n)
	}
	if n := strings.Count(e.Logs(), "a mirror fails"); n != 1 {
		t.Errorf("%d log lines say so:\n%s", n, e.Logs())
	}
	if err := mirror.Start(); err != nil {
		t.Fatal(err)
	}
	mirror.Reset()
	harness.Eventually(t, time.Minute, "a read from the mirror", func() bool {
		read(1)
		time.Sleep(200 * time.Millisecond)
		return mirror.Count(faultreg.Match{Kind: faultreg.Blob}) > 0
	})
}

// TestMirrorRange: a mirror that cannot do ranges, and one that has only the start of a blob.
func TestMirrorRange(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	srv, ref := s.registry("5000", s.conf("registry.test"))
	s.hostsToml("http://mirror.test:5001", "capabilities = [\"pull\"]\n")
	mirror := s.serve(faultreg.Options{Addr: mirrorAddr + ":5001", Backend: srv.Backend()})
	wire := s.img.WireOf("world/fs/f")
	mirror.On(faultreg.Match{Ref: wire}, faultreg.Cut{Percent: 60}.Fault())
	srv.On(faultreg.Match{Ref: wire}, faultreg.IgnoreRange())
	s.reads(ref)
	for _, x := range srv.Log() {
		if x.Ref == wire && (x.Status != http.StatusOK || x.Header.Get("Range") == "") {
			t.Errorf("%s with Range %q: %d", x.Path, x.Header.Get("Range"), x.Status)
		}
	}
}
