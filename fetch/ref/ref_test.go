package ref

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const hexDigest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestParseRef(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("PF_STORE", "")
	dir := filepath.Join(t.TempDir(), "with:colon")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	digest := "@sha256:" + hexDigest
	tests := []struct{ in, want string }{
		{"ghcr.io/org/repo", "ghcr.io/org/repo:latest"},
		{"oci://ghcr.io/org/repo:v1", "ghcr.io/org/repo:v1"},
		{"GHCR.io/org/repo:V1", "ghcr.io/org/repo:V1"},
		{"ghcr.io/org/repo" + digest, "ghcr.io/org/repo" + digest},
		{"ghcr.io/org/repo:v1" + digest, "ghcr.io/org/repo:v1" + digest},
		{"ghcr.io/org/repo@sha256:" + strings.ToUpper(hexDigest), "ghcr.io/org/repo" + digest},
		{"localhost/repo", "localhost/repo:latest"},
		{"LOCALHOST:5000/a/b:t", "localhost:5000/a/b:t"},
		{"registry:5000/a", "registry:5000/a:latest"},
		{"registry:05000/a", "registry:5000/a:latest"},
		{"registry:65535/a", "registry:65535/a:latest"},
		{"[::1]:5000/a", "[::1]:5000/a:latest"},
		{"[2001:DB8:0::1]/a", "[2001:db8::1]/a:latest"},
		{"127.0.0.1.evil.example/a", "127.0.0.1.evil.example/a:latest"},
		{"docker.io/x", "docker.io/library/x:latest"},
		{"index.docker.io/x:1", "docker.io/library/x:1"},
		{"registry-1.docker.io/u/x", "docker.io/u/x:latest"},
		{"Docker.IO/x:V1" + digest, "docker.io/library/x:V1" + digest},
		{"docker.io:443/x", "docker.io/library/x:latest"},
		{"docker.io:5000/x", "docker.io:5000/x:latest"},
		{"index.docker.io/library/x", "docker.io/library/x:latest"},
		{"oci://[::1]:1/a" + digest, "[::1]:1/a" + digest},
		{"oci://docker.io/x", "docker.io/library/x:latest"},
		{"h.example/a--b/c__d/e.f_g:x", "h.example/a--b/c__d/e.f_g:x"},
		{"oci-layout:/l", "oci-layout:/l"},
		{"oci-layout:/l/:v1", "oci-layout:/l:v1"},
		{"oci-layout:l:v1", "oci-layout:l:v1"},
		{"oci-layout:" + dir, "oci-layout:" + dir},
		{"oci-layout:" + dir + ":v1", "oci-layout:" + dir + ":v1"},
		{"oci-layout:/l" + digest, "oci-layout:/l" + digest},
		{"oci-layout:/l:v1" + digest, "oci-layout:/l:v1" + digest},
		{"file:///a/b/", "file:///a/b"},
		{"store:" + hexDigest, "store:" + hexDigest},
		{"store:sha256:" + hexDigest, "store:" + hexDigest},
		{"store:SHA256:" + strings.ToUpper(hexDigest), "store:" + hexDigest},
	}
	for _, tt := range tests {
		r, err := Parse(tt.in)
		if err != nil || r.String() != tt.want {
			t.Errorf("%s: got %q, %v, want %q", tt.in, r, err, tt.want)
			continue
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%s: its canonical form gives %#v, %v, want %#v", tt.in, again, err, r)
		}
	}
	if r, err := Parse("store:" + hexDigest); err != nil || r.Dir() != filepath.Join(home, ".processfork") {
		t.Errorf("store below HOME: got %q, %v", r.Dir(), err)
	}
	t.Setenv("PF_STORE", "/s")
	if r, err := Parse("store:" + hexDigest); err != nil || r.Dir() != "/s" {
		t.Errorf("store of PF_STORE: got %q, %v", r.Dir(), err)
	}
}

func TestParseRefRefuses(t *testing.T) {
	tests := []struct{ in, hint string }{
		{"", "empty"},
		{"oci://", "names no registry host"},
		{"oci://alice/sess", "localhost:5000/alice/sess"},
		{"sess@sha256:" + hexDigest, "docker.io/library/sess"},
		{"host:-1/a", "65535"},
		{"host:+1/a", "65535"},
		{"host:99999999999999999999/a", "65535"},
		{"[]:5000/a", "IPv6"},
		{"ghcr.io:5000:1/a", "brackets"},
		{"ubuntu", "docker.io/library/ubuntu"},
		{"ubuntu:22.04", "docker.io/library/ubuntu:22.04"},
		{"alice/sess:v1", "localhost:5000/alice/sess:v1"},
		{"ghcr.io", "no repository"},
		{"ghcr.io/", "no repository"},
		{"./layout", "oci-layout:./layout"},
		{"/abs/layout", "oci-layout:/abs/layout"},
		{"https://ghcr.io/org/repo", `"https"`},
		{"s3://bucket/x", `"s3"`},
		{"oci:dir", "oci-layout:DIR"},
		{"ghcr.io/Org/repo", "ghcr"},
		{"ghcr.io/a//b", "single '/'"},
		{"ghcr.io/../b", "single '/'"},
		{"ghcr.io//b", "single '/'"},
		{"ghcr.io/a/", "single '/'"},
		{"ghcr.io/a b", "single '/'"},
		{"ghcr.io/a:", "tag"},
		{"ghcr.io/a:-x", "tag"},
		{"ghcr.io/a:" + strings.Repeat("x", 129), "tag"},
		{"ghcr.io/a@sha256:12", "64 hex"},
		{"ghcr.io/a@sha512:" + hexDigest, "64 hex"},
		{"host:0/a", "65535"},
		{"host:65536/a", "65535"},
		{"host:x/a", "65535"},
		{"host:/a", "65535"},
		{"::1/a", "brackets"},
		{"[::1/a", "closed"},
		{"[127.0.0.1]/a", "IPv6"},
		{"[fe80::1%eth0]/a", "IPv6"},
		{"[::1]x/a", "port"},
		{"ghcr..io/a", "host's name"},
		{"-x.io/a", "host's name"},
		{"user@ghcr.io/a", "64 hex"},
		{"ghcr.io/a\n", "control"},
		{"ghcr.io/a\x1b[31m", "control"},
		{"ghcr.io/" + strings.Repeat("a", 256), "256 bytes"},
		{"ghcr.io/" + strings.Repeat("a", 5000), "4096"},
		{"oci-layout:", "oci-layout:DIR"},
		{"oci-layout::v1", "names no folder"},
		{"oci-layout:/l:", "tag"},
		{"file://dir", "three slashes"},
		{"file:/dir", "three slashes"},
		{"store:12", "64 hex"},
	}
	for _, tt := range tests {
		r, err := Parse(tt.in)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("%.60q: got %v, %v, want ErrRef with %q", tt.in, r, err, tt.hint)
		} else if strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%.60q: the error is not escaped: %q", tt.in, err)
		}
	}
}

func TestRefKinds(t *testing.T) {
	t.Setenv("PF_STORE", "/s")
	tests := []struct {
		in      string
		kind    Kind
		dir     string
		signKey string
	}{
		{"ghcr.io/a", Registry, "", "PF_OCI_REG_SIGN_KEY"},
		{"oci-layout:/l:t", Layout, "/l", "PF_OCI_REG_SIGN_KEY"},
		{"file:///f", Folder, "/f", "PF_FILE_REG_SIGN_KEY"},
		{"store:" + hexDigest, Store, "/s", ""},
	}
	for _, tt := range tests {
		r, err := Parse(tt.in)
		if err != nil || r.Kind() != tt.kind || r.Dir() != tt.dir || r.SignKeyVar() != tt.signKey {
			t.Errorf("%s: got %v %q %q, %v", tt.in, r.Kind(), r.Dir(), r.SignKeyVar(), err)
		}
	}
	r, err := Parse("oci-layout:rel/x:t")
	if err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if abs, err := r.Abs(); err != nil || abs.Dir() != filepath.Join(cwd, "rel/x") || abs.tag != "t" {
		t.Errorf("Abs: got %v, %v", abs, err)
	}
}

func TestIsLoopback(t *testing.T) {
	tests := map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.9.9.9:1": true, "[::1]:5000": true,
		"[::ffff:127.0.0.1]": true, "127.0.0.1.evil.example": false, "localhost.example": false,
		"127.1":         false,
		"10.0.0.1:5000": false, "[2001:db8::1]": false, "": false,
	}
	for host, want := range tests {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"ghcr.io/org/repo:v1@sha256:" + hexDigest, "oci-layout:/l:t",
		"file:///d", "store:" + hexDigest, "[::1]:5000/a", "docker.io/x"} {
		f.Add(s)
	}
	f.Setenv("PF_STORE", "/s")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: not ErrRef: %v", s, err)
			}
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: its canonical form %q gives %#v, %v, want %#v", s, r, again, err, r)
		}
	})
}
