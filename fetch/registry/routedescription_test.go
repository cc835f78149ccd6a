package registry

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/cred"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// TestDescribe: which hosts would be asked, in which order, with which credentials; no request is
// sent to find out.
func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	registrytest.WriteFile(t, filepath.Join(dir, "config.json"),
		registrytest.LoginFile(cred.HubKey, "hub:S3CRET", "h.example", "own:S3CRET",
			"mirror.example:5000/a", "there:S3CRET"), 0o600)
	registrytest.WriteFile(t, filepath.Join(dir, "bad/config.json"), "{S3CRET", 0o600)
	const hosts = "odd = 1\n[host.\"http://mirror.example:5000\"]\ncapabilities = [\"pull\"]\nskip_verify = true\n"
	mirrored := writeHosts(t, "h.example", hosts)
	tests := []struct {
		name, ref, hosts string
		env              []string
		want             string // endpoints
	}{
		{"Docker Hub by its key", "docker.io/x", "", []string{"DOCKER_CONFIG", dir},
			"https://registry-1.docker.io/v2/library/x/ [pull resolve push] the user hub of https://index.docker.io/v1/ in " + dir + "/config.json"},
		{"anonymous", "h.example/a", "", nil, "https://h.example/v2/a/ [pull resolve push] "},
		{"given", "h.example/a", "", []string{"OCI_BEARER", "S3CRET", "DOCKER_CONFIG", dir},
			"https://h.example/v2/a/ [pull resolve push] the token in OCI_BEARER"},
		{"mirror", "h.example/a", mirrored, []string{"DOCKER_CONFIG", dir, "OCI_USERNAME", "u",
			"OCI_PASSWORD", "S3CRET"},
			"http://mirror.example:5000/v2/a/ [pull] the user there of mirror.example:5000/a in " +
				dir + "/config.json mirror unchecked" +
				"; https://h.example/v2/a/ [pull resolve push] the user u of OCI_USERNAME"},
		{"bad file", "h.example/a", "", []string{"DOCKER_CONFIG", dir + "/bad"},
			"https://h.example/v2/a/ [pull resolve push]  access denied"},
	}
	for _, tt := range tests {
		ref, err := ref.Parse(tt.ref)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Describe(context.Background(), ref,
			Options{Login: cred.Options{Getenv: registrytest.Env(tt.env...)},
				TLS: TLSOptions{HostsDir: tt.hosts}})
		var list []string
		for _, e := range s.Endpoints {
			text := fmt.Sprintf("%s %v %s", e.URL, e.Capabilities, e.Login)
			if e.Mirror {
				text += " mirror"
			}
			if e.Unchecked {
				text += " unchecked"
			}
			if errors.Is(e.LoginError, ErrDenied) {
				text += " " + ErrDenied.Error()
			}
			list = append(list, text)
		}
		if got := strings.Join(list, "; "); err != nil || got != tt.want || strings.Contains(got, "S3CRET") {
			t.Errorf("%s: got %q, %v, want %q", tt.name, got, err, tt.want)
		}
		if tt.hosts != "" && (s.HostsFile != filepath.Join(mirrored, "h.example/hosts.toml") ||
			len(s.Warnings) != 1) {
			t.Errorf("%s: file %q, warnings %q", tt.name, s.HostsFile, s.Warnings)
		}
	}
	folder, err := ref.Parse("file:///d")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Describe(context.Background(), folder, Options{}); !errors.Is(err, ref.ErrInvalid) {
		t.Errorf("a folder: got %v, want ref.ErrInvalid", err)
	}
	if _, err := Describe(context.Background(), registrytest.Ref(t, "h.example/a"),
		Options{Login: cred.Options{Getenv: registrytest.Env("HTTP_PROXY",
			"odd://x")}}); !errors.Is(err, ErrConfig) {
		t.Errorf("a bad proxy: got %v, want ErrConfig", err)
	}
}
