package cred

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"oras.land/oras-go/v2/registry/remote/auth"
)

func TestKeys(t *testing.T) {
	user := func(name, password string) auth.Credential {
		return auth.Credential{Username: name, Password: password}
	}
	none := auth.EmptyCredential
	tests := []struct {
		name, host, repo, file string
		want                   auth.Credential
	}{
		{"host:port", "h:5000", "org/repo", registrytest.LoginFile("h:5000", "u:p"), user("u", "p")},
		{"https://host:port", "h:5000", "org/repo", registrytest.LoginFile("https://h:5000", "u:p"),
			user("u", "p")},
		{"https://host:port/", "h:5000", "org/repo",
			registrytest.LoginFile("https://h:5000/", "u:p"), user("u", "p")},
		{"https://host:port/v1/", "h:5000", "org/repo",
			registrytest.LoginFile("https://h:5000/v1/", "u:p"), user("u", "p")},
		{"https://host:port/v2/", "h:5000", "org/repo",
			registrytest.LoginFile("https://h:5000/v2/", "u:p"), user("u", "p")},
		{"http://host:port", "h:5000", "org/repo", registrytest.LoginFile("http://h:5000", "u:p"),
			user("u", "p")},
		{"host:port/org", "h:5000", "org/repo",
			registrytest.LoginFile("h:5000", "u:host", "h:5000/org", "u:org"), user("u", "org")},
		{"host:port/org/repo", "h:5000", "org/repo",
			registrytest.LoginFile("h:5000/org", "u:org", "h:5000/org/repo", "u:repo", "h:5000",
				"u:host"), user("u", "repo")},
		{"three levels", "h:5000", "a/b/c", registrytest.LoginFile("h:5000/a", "u:1", "h:5000/a/b",
			"u:2"), user("u", "2")},
		{"another path", "h:5000", "org/repo",
			registrytest.LoginFile("h:5000/other", "u:p", "h:5000/org/rep", "u:p", "h:5000/or",
				"u:p", "h:5000/org/repo/x", "u:p"), none},
		{"another port", "h:5000", "org/repo", registrytest.LoginFile("h", "u:p", "h:5001", "u:p"), none},
		{"no port", "h.example", "x", registrytest.LoginFile("h.example:5000", "u:p", "x.h.example",
			"u:p"), none},
		{"a longer host", "h.example", "x", registrytest.LoginFile("h.example.evil", "u:p",
			"https://h.example.evil/v2/", "u:p"), none},
		{"IPv6", "[::1]:5000", "x", registrytest.LoginFile("[::1]:5000", "u:p"), user("u", "p")},
		{"password with colons", "h", "x", registrytest.LoginFile("h", "u:p:w:"), user("u", "p:w:")},
		{"password that is not UTF-8", "h", "x", registrytest.LoginFile("h", "u:\xff"), user("u", "\xff")},
		{"user and password in the clear", "h", "x",
			`{"auths":{"h":{"username":"u","password":"p:w"}}}`, user("u", "p:w")},
		{"identity token", "h", "x", `{"auths":{"h":{"auth":"` + registrytest.Base64("0000:") +
			`","identitytoken":"idt"}}}`, auth.Credential{Username: "0000", RefreshToken: "idt"}},
		{"empty entry", "h", "x", `{"auths":{"h":{},"https://h":{"auth":"` +
			registrytest.Base64("u:p") + `"}}}`, user("u", "p")},
		{"no password", "h", "x", registrytest.LoginFile("h", "u:"), none},
		{"Docker Hub", ref.DockerAPI, "library/x", registrytest.LoginFile(HubKey, "u:p"), user("u", "p")},
		{"Docker Hub by podman", ref.DockerAPI, "library/x",
			registrytest.LoginFile("docker.io", "u:p"), user("u", "p")},
		{"Docker Hub, a path", ref.DockerAPI, "library/x",
			registrytest.LoginFile("docker.io/library", "u:path", HubKey, "u:p"), user("u", "path")},
		{"Docker Hub, key of others", "h", "x", registrytest.LoginFile(HubKey, "u:p"), none},
		{"nothing", "h", "x", `{}`, none},
		{"null", "h", "x", `null`, none},
		{"empty file", "h", "x", ``, none},
		{"other fields", "h", "x",
			`{"HttpHeaders":{"X":"y"},"detachKeys":"x","auths":{"h":{"auth":"` +
				registrytest.Base64("u:p") + `","email":"e"}}}`, user("u", "p")},
	}
	for _, tt := range tests {
		path := registrytest.WriteFile(t, filepath.Join(t.TempDir(), "config.json"), tt.file, 0o600)
		got, err := Find(context.Background(), []string{path}, Names(tt.host, tt.repo))
		if err != nil || got.Cred != tt.want || (got.Source == "") != (tt.want == none) {
			t.Errorf("%s: got %+v, %v, want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestBadCredFile(t *testing.T) {
	const secret = "S3CRETpass"
	huge := func(path string) string {
		registrytest.WriteFile(t, path, "{", 0o600)
		if err := os.Truncate(path, 100<<20); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct{ name, file, text string }{
		{"not JSON", `{"auths":{"h":{"auth":"` + secret, "is not JSON"},
		{"text", secret, "is not JSON"},
		{"trailing", registrytest.LoginFile("h", "u:"+secret) + secret, "is not JSON"},
		{"list", `["` + secret + `"]`, "not that of a login file"},
		{"number for auth", `{"auths":{"h":{"auth":7734773477}}}`, "not that of a login file"},
		{"bad base64", `{"auths":{"h":{"auth":"` + secret + `!"}}}`, "the auth of h is not base64"},
		{"no colon", `{"auths":{"h":{"auth":"` + registrytest.Base64(secret) + `"}}}`,
			"the auth of h is not base64"},
		{"100 MB", "huge", "104857600 bytes"},
		{"a folder", "dir", "no regular file"},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "config.json")
		switch tt.file {
		case "huge":
			huge(path)
		case "dir":
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		default:
			registrytest.WriteFile(t, path, tt.file, 0o600)
		}
		_, err := Find(context.Background(), []string{path}, Names("h", "x"))
		var unreadable *Error
		if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), tt.text) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an Error with %q and the file's name", tt.name, err, tt.text)
			continue
		}
		for _, s := range []string{secret, registrytest.Base64(secret), "7734773477"} {
			if strings.Contains(err.Error(), s) {
				t.Errorf("%s: a secret is in %v", tt.name, err)
			}
		}
	}
	// What is wrong with the login of another host is no reason not to use this one.
	path := registrytest.WriteFile(t, filepath.Join(t.TempDir(), "c"),
		`{"auths":{"other":{"auth":"!"},"h":{"auth":"`+registrytest.Base64("u:p")+`"}}}`, 0o600)
	if got, err := Find(context.Background(), []string{path}, Names("h", "x")); err != nil ||
		got.Cred.Username != "u" {
		t.Errorf("bad login of another host: got %+v, %v", got, err)
	}
}

// TestCredFiles: which files are looked at, in which order, and that a broken one hides none before
// it.
func TestCredFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	getenv := registrytest.Env("REGISTRY_AUTH_FILE", "reg.json", "XDG_RUNTIME_DIR", dir+"/run",
		"XDG_CONFIG_HOME", dir+"/xdg", "HOME", dir+"/home", "DOCKER_CONFIG", "dock")
	files := Files(getenv)
	want := []string{"reg.json", "run/containers/auth.json", "xdg/containers/auth.json",
		"home/.config/containers/auth.json", "dock/config.json", "home/.docker/config.json"}
	if len(files) != len(want) {
		t.Fatalf("got %q, want %q", files, want)
	}
	for i := len(want) - 1; i >= 0; i-- {
		if files[i] != filepath.Join(dir, want[i]) {
			t.Errorf("file %d: got %s, want %s", i, files[i], want[i])
		}
		registrytest.WriteFile(t, files[i], registrytest.LoginFile("h", "u:"+want[i]), 0o600)
		got, err := Find(context.Background(), files, Names("h", "x"))
		if err != nil || got.Cred.Password != want[i] || !strings.Contains(got.Source, files[i]) {
			t.Errorf("with %s: got %+v, %v", want[i], got, err)
		}
	}
	registrytest.WriteFile(t, files[3], "{", 0o600)
	if got, err := Find(context.Background(), files, Names("h", "x")); err != nil ||
		got.Cred.Password != want[0] {
		t.Errorf("a broken file behind: got %+v, %v", got, err)
	}
	if _, err := Find(context.Background(), files, Names("other", "x")); err == nil ||
		!strings.Contains(err.Error(), files[3]) {
		t.Errorf("a broken file before: got %v, want an error with %s", err, files[3])
	}
}

// FuzzCredFile: whatever stands in a login file, errors repeat none of it.
func FuzzCredFile(f *testing.F) {
	f.Add([]byte(registrytest.LoginFile("h", "u:p")))
	f.Add([]byte(`{"auths":{"h":{"auth":"!"}},"credHelpers":{"h":"../x"},"credsStore":"y"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", t.TempDir()) // no helper is there
		got, err := Find(context.Background(), []string{path}, Names("h", "x"))
		var unreadable *Error
		if err != nil && !errors.As(err, &unreadable) {
			t.Fatalf("no Error: %v", err)
		}
		if (got.Source == "") != (got.Cred == auth.EmptyCredential) {
			t.Fatalf("credential without a source, or the other way: %+v", got)
		}
	})
}
