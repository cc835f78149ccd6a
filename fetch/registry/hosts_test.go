package registry

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
)

// writeHosts puts a hosts.toml for a registry below a new root.
func writeHosts(t *testing.T, folder, text string) (root string) {
	t.Helper()
	root = t.TempDir()
	writeConfig(t, filepath.Join(root, folder, "hosts.toml"), text)
	return root
}

func writeConfig(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// planOf plans the route of a reference's registry.
func planOf(t *testing.T, name, root string) (route, []string, error) {
	t.Helper()
	o := quickOptions()
	o.TLS.HostsDir, o.TLS.DockerDir = root, t.TempDir()
	o = o.WithDefaults()
	var warnings []string
	own := name
	if name == ref.DockerHub {
		own = ref.DockerAPI
	}
	r, err := planner{
		name: name, own: ownEndpoint(own), o: o, t: newTransport(o, new(artifact.Counters)),
		warn: func(s string) { warnings = append(warnings, s) },
	}.plan()
	return r, warnings, err
}

// TestHostsToml: which endpoints a file makes, written as scheme host path capabilities ns.
func TestHostsToml(t *testing.T) {
	tests := []struct {
		name, registry, text string
		want                 []string
	}{
		{"empty", "registry.test:5000", "", []string{"? registry.test:5000 /v2 7 "}},
		{"comment", "registry.test:5000", "# nothing\n", []string{"? registry.test:5000 /v2 7 "}},
		{"a mirror", "registry.test:5000", "[host.\"http://10.0.0.1:5001\"]\n", []string{
			"http 10.0.0.1:5001 /v2 7 registry.test:5000", "? registry.test:5000 /v2 7 "}},
		{"docker.io", "docker.io",
			"server = \"https://registry-1.docker.io\"\n[host.\"https://mirror.test\"]\ncapabilities = [\"pull\", \"Resolve\"]\n", []string{
				"https mirror.test /v2 3 docker.io", "https registry-1.docker.io /v2 7 "}},
		{"docker.io by its own name", "docker.io", "server = \"https://docker.io\"\n",
			[]string{"https registry-1.docker.io /v2 7 "}},
		{"order, not the alphabet's", "registry.test",
			"[host.\"https://z.test\"]\n[host.\"https://a.test\"]\n[host.\"https://m.test\".header]\nx = \"y\"\n", []string{
				"https z.test /v2 7 registry.test", "https a.test /v2 7 registry.test",
				"https m.test /v2 7 registry.test", "? registry.test /v2 7 "}},
		{"listed twice", "registry.test",
			"server = \"https://registry.test\"\n[host.\"https://registry.test\"]\ncapabilities = [\"pull\"]\n", []string{
				"https registry.test /v2 1 "}},
		{"listed with its port", "registry.test",
			"server = \"https://registry.test\"\n[host.\"https://registry.test:443\"]\n", []string{
				"https registry.test /v2 7 "}},
		{"listed without server", "registry.test", "[host.\"https://registry.test\"]\n",
			[]string{"https registry.test /v2 7 "}},
		{"path", "registry.test", "[host.\"https://h.test/proxy/cache/\"]\n", []string{
			"https h.test /proxy/cache/v2 7 registry.test", "? registry.test /v2 7 "}},
		{"path with v2", "registry.test", "[host.\"https://h.test/v2/\"]\n", []string{
			"https h.test /v2 7 registry.test", "? registry.test /v2 7 "}},
		{"override_path", "registry.test",
			"[host.\"https://h.test/v2/proxy\"]\noverride_path = true\n", []string{
				"https h.test /v2/proxy 7 registry.test", "? registry.test /v2 7 "}},
		{"override_path without a path", "registry.test",
			"[host.\"https://h.test\"]\noverride_path = true\n", []string{
				"https h.test  7 registry.test", "? registry.test /v2 7 "}},
		{"no scheme", "registry.test", "server = \"registry.test\"\n[host.\"h.test:8080\"]\n", []string{
			"https h.test:8080 /v2 7 registry.test", "https registry.test /v2 7 "}},
		{"another server", "registry.test",
			"server = \"https://other.test\"\ncapabilities = [\"pull\"]\n", []string{
				"https other.test /v2 1 registry.test"}},
		{"no capabilities are all", "registry.test",
			"[host.\"https://h.test\"]\ncapabilities = []\n", []string{
				"https h.test /v2 7 registry.test", "? registry.test /v2 7 "}},
		{"registry's own", "registry.test",
			"capabilities = [\"resolve\"]\n[host.\"https://h.test\"]\ncapabilities = [\"pull\"]\n", []string{
				"https h.test /v2 1 registry.test", "? registry.test /v2 2 "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, warnings, err := planOf(t, tt.registry, writeHosts(t, tt.registry, tt.text))
			if err != nil || len(warnings) != 0 {
				t.Fatalf("got %v, warnings %q", err, warnings)
			}
			var got []string
			for _, e := range r {
				scheme := e.scheme
				if scheme == "" {
					scheme = "?"
				}
				got = append(got, strings.Join([]string{scheme, e.host, e.path,
					string('0' + byte(e.can)), e.ns}, " "))
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestHostsFolder: the first folder that exists counts.
func TestHostsFolder(t *testing.T) {
	root := t.TempDir()
	for i, tt := range []struct{ host, folder string }{
		{"a.test:5000", "_default"}, {"a.test:5000", "a.test:5000"}, {"a.test:5000", "a.test_5000_"},
		{"b.test", "b.test"}, {"[::1]:5000", "[::1]_5000_"}, {"[::1]", "[::1]"},
	} {
		if i == 0 && hostsFolder(root, tt.host) != "" || hostsFolder("", tt.host) != "" {
			t.Error("a folder where there is none")
		}
		if err := os.Mkdir(filepath.Join(root, tt.folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := hostsFolder(root, tt.host); got != filepath.Join(root, tt.folder) {
			t.Errorf("%s: got %s, want %s", tt.host, got, tt.folder)
		}
	}
}

// TestHostsTomlBroken: errors name file and line and nothing that stands there.
func TestHostsTomlBroken(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no TOML", "server = \"x.test\"\nAuthorization = Bearer SECRET\n", "line 2"},
		{"no end", "[host.\"https://h.test\"]\n[host.\"https://h.test\".header]\nauthorization = \"SECRET\n", "line 3"},
		{"twice", "server = \"x.test\"\nserver = \"SECRET.test\"\n", "line 2"},
		{"capability", "\ncapabilities = [\"pull\", \"fly\"]\n", "line 2: \"fly\""},
		{"capabilities of numbers", "capabilities = [1]\n", "line 1: capabilities"},
		{"capability as text", "capabilities = \"pull\"\n", "line 1: capabilities"},
		{"ca", "ca = [[\"x\"]]\n", "line 1: ca"},
		{"client", "client = [[\"a\", \"b\", \"c\"]]\n", "line 1: client"},
		{"client as number", "\n\nclient = 3\n", "line 3: client"},
		{"header", "header = \"SECRET\"\n", "line 1: header"},
		{"header's value", "[header]\nx = 3\n", "header"},
		{"time", "dial_timeout = \"soon\"\n", "line 1: dial_timeout"},
		{"time without a unit", "dial_timeout = 3\n", "line 1: dial_timeout"},
		{"flag", "\nskip_verify = \"SECRET\"\n", "line 2"},
		{"host", "\n[host.\"ftp://h.test\"]\n", "line 2: a host"},
		{"host with a password", "\n\n[host.\"https://u:SECRET@h.test\"]\n", "line 3: a host"},
		{"server", "server = \"https://h.test?x=SECRET\"\n", "line 1: a host"},
		{"server that is none", "server = \"https://h_t.test\"\n", "line 1: a host"},
		{"too many hosts", manyHosts() + "[host.\"https://one.test\"]\n", "limit is 64"},
		{"CA that is not there", "ca = \"none.pem\"\n", "none.pem"},
		{"CA that is none", "ca = \"hosts.toml\"\n", "no certificate"},
		{"client that is not there", "client = [[\"none.cert\", \"none.key\"]]\n", "none.cert"},
		{"too long", strings.Repeat("#", maxConfig+1), "longer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := planOf(t, "registry.test", writeHosts(t, "registry.test", tt.text))
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.want) ||
				!strings.Contains(err.Error(), "hosts.toml") && !strings.Contains(err.Error(), "none.") {
				t.Fatalf("got %v, want ErrConfig with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error shows what stands in the file: %v", err)
			}
		})
	}
}

func manyHosts() string {
	var b strings.Builder
	for i := range maxMirrors {
		b.WriteString("[host.\"https://h" + strings.Repeat("x", i) + ".test\"]\n")
	}
	return b.String()
}

// TestHostsTomlUnknown: what is not known is a warning.
func TestHostsTomlUnknown(t *testing.T) {
	text := "# colour\ncolour = \"red\"\n[host.\"https://h.test\"]\n  speed = 3\n[host.\"https://h.test\".header]\nx = \"y\"\n"
	r, warnings, err := planOf(t, "registry.test", writeHosts(t, "_default", text))
	if err != nil || len(r) != 2 || r[0].header.Get("X") != "y" {
		t.Fatalf("got %v, %v", r, err)
	}
	all := strings.Join(warnings, "\n")
	if len(warnings) != 2 || !strings.Contains(all, "line 2: \"colour\"") ||
		!strings.Contains(all, "line 4: \"speed\"") {
		t.Errorf("got %q", warnings)
	}
}

// TestHostsTomlFiles: the forms of ca and client, and the time of a dial.
func TestHostsTomlFiles(t *testing.T) {
	tests := []struct {
		text string
		want certs
	}{
		{"ca = \"a.pem\"", certs{roots: []string{"/d/a.pem"}}},
		{"ca = [\"a.pem\", \"/x/b.pem\"]", certs{roots: []string{"/d/a.pem", "/x/b.pem"}}},
		{"client = \"c.pem\"", certs{clients: []keyPair{{"/d/c.pem", ""}}}},
		{"client = [\"c.pem\", \"d.pem\"]", certs{clients: []keyPair{{"/d/c.pem", ""}, {"/d/d.pem", ""}}}},
		{"client = [[\"c.cert\", \"/x/c.key\"], [\"d.pem\"]]",
			certs{clients: []keyPair{{"/d/c.cert", "/x/c.key"}, {"/d/d.pem", ""}}}},
		{"client = [[\"c.cert\", \"\"]]", certs{clients: []keyPair{{"/d/c.cert", ""}}}},
		{"skip_verify = true", certs{open: true}},
	}
	for _, tt := range tests {
		f, err := readHosts(filepath.Join(writeHosts(t, "x",
			tt.text+"\ndial_timeout = \"1m2s\"\n[header]\nx-a = [\"1\", \"2\"]\n"), "x"), nil)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if got := f.certs("/d"); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.text, got, tt.want)
		}
		if time.Duration(f.DialTimeout) != 62*time.Second ||
			!reflect.DeepEqual(http.Header(f.Header), http.Header{"X-A": {"1", "2"}}) {
			t.Errorf("got %v and %v", f.DialTimeout, f.Header)
		}
	}
}
