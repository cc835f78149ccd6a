package e2e

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// TestBadAnswer: what registries answer in place of a ProcessFork image's manifest.
func TestBadAnswer(t *testing.T) {
	t.Parallel()
	const (
		index  = "application/vnd.oci.image.index.v1+json"
		docker = "application/vnd.docker.distribution.manifest.v2+json"
		list   = "application/vnd.docker.distribution.manifest.list.v2+json"
		oci    = "application/vnd.oci.image.manifest.v1+json"
	)
	image := func(config string) string {
		return `{"schemaVersion":2,"config":{"mediaType":"` + config + `","size":2,"digest":"sha256:` +
			strings.Repeat("ab", 32) + `"},"layers":[]}`
	}
	tests := []struct {
		name  string
		fault faultreg.Fault
		code  int
		says  []string
	}{
		{"HTML", faultreg.Answer(200, "<html>Log in</html>", "Content-Type",
			"text/html; charset=utf-8"), 5, []string{"web page"}},
		{"HTML error", faultreg.Answer(404, "<html>gone\x1b[31m</html>", "Content-Type",
			"text/html"), 5, []string{"404"}},
		{"401", faultreg.Answer(401, "", "WWW-Authenticate", `Basic realm="x"`), 5, []string{"401"}},
		{"401 without a challenge", faultreg.Answer(401, ""), 5, []string{"401"}},
		{"401, realm of nobody", faultreg.Answer(401, "", "WWW-Authenticate",
			`Bearer realm="http://127.0.0.1:1/token",service="x"`), 5, []string{"127.0.0.1:1"}},
		{"403", faultreg.Answer(403, `{"errors":[{"code":"DENIED","message":"no \u001b[31mway"}]}`,
			"Content-Type", "application/json"), 5, []string{"403", "DENIED"}},
		{"404", faultreg.Answer(404,
			`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`, "Content-Type",
			"application/json"), 5, []string{"404", "MANIFEST_UNKNOWN"}},
		{"500", faultreg.Answer(500, "oops"), 5, []string{"500"}},
		{"429 for an hour", faultreg.Answer(429, "", "Retry-After", "3600"), 5, []string{"429", "1h"}},
		{"closed connection", faultreg.Drop(), 5, []string{"closed"}},
		{"endless error", endlessError, 5, []string{"400"}},
		{"redirects in a circle", circle, 5, []string{"redirects"}},
		{"empty", faultreg.Body(oci, nil), 4, []string{"manifest"}},
		{"cut", faultreg.Body(oci, []byte(image("x")[:40])), 4, []string{"manifest"}},
		{"no JSON", faultreg.Body(oci, []byte("hello")), 4, []string{"manifest"}},
		{"nested", faultreg.Body(oci, []byte(`{"schemaVersion":2,"x":`+nested(200_000)+`}`)), 4,
			[]string{"manifest"}},
		{"duplicate name", faultreg.Body(oci, []byte(`{"schemaVersion":2,"schemaVersion":2}`)), 4,
			[]string{"duplicate"}},
		{"other JSON", faultreg.Body(oci, []byte(`{"hello":"world"}`)), 2,
			[]string{"not a ProcessFork image"}},
		{"index", faultreg.Body(index,
			[]byte(`{"schemaVersion":2,"mediaType":"`+index+`","manifests":[]}`)), 2, []string{"index"}},
		{"index by its content", faultreg.Body("application/json",
			[]byte(`{"schemaVersion":2,"manifests":[]}`)), 2, []string{"index"}},
		{"docker list", faultreg.Body(list,
			[]byte(`{"schemaVersion":2,"mediaType":"`+list+`","manifests":[]}`)), 2, []string{"index"}},
		{"docker image", faultreg.Body(docker,
			[]byte(image("application/vnd.docker.container.image.v1+json"))), 2, []string{"docker image"}},
		{"docker image of schema 1",
			faultreg.Body("application/vnd.docker.distribution.manifest.v1+json",
				[]byte(`{"schemaVersion":1,"fsLayers":[]}`)), 2, []string{"schema 1"}},
		{"container image", faultreg.Body(oci,
			[]byte(image("application/vnd.oci.image.config.v1+json"))), 2, []string{"container image"}},
		{"helm chart", faultreg.Body(oci,
			[]byte(image("application/vnd.cncf.helm.config.v1+json"))), 2, []string{"helm"}},
		{"other artifact", faultreg.Body(oci, []byte(image("application/vnd.\u202eexample"))), 2,
			[]string{"not a ProcessFork image", "example"}},
		{"config that is not there", faultreg.Body(oci,
			[]byte(image("application/vnd.processfork.image.v1+json"))), 4, []string{"config", "missing"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			srv := e.Registry()
			srv.On(faultreg.Match{Kind: faultreg.Manifest}, tt.fault)
			srv.On(faultreg.Match{Kind: faultreg.Ping}, tt.fault)
			ref := srv.Ref("team/app", "v1")
			e.Prefix = harness.MemoryLimit(t, megabytes(200))
			refused(t, e, tt.code, append(tt.says, srv.Host()), ref, e.MountDir())
		})
	}
}

// endlessError is an error answer whose text never ends.
func endlessError(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusBadRequest)
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return
		}
	}
}

// circle sends every request back to where it came from.
func circle(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
}

// TestSilentRegistry: registries that are not there, or accept and say nothing.
func TestSilentRegistry(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(t *testing.T, e *harness.Env) string
		says    string
	}{
		{"nobody listens", func(_ *testing.T, e *harness.Env) string {
			srv := e.Registry()
			srv.Stop()
			return srv.Ref("team/app", "v1")
		}, "refused"},
		{"no answer", func(_ *testing.T, e *harness.Env) string {
			srv := e.Registry()
			srv.On(faultreg.Match{}, faultreg.NewHold().Fault())
			return srv.Ref("team/app", "v1")
		}, "no byte arrived"},
		{"half an answer", func(t *testing.T, e *harness.Env) string {
			ref := e.Push(harness.Fixture(t, "minimal"))
			e.Registry().On(faultreg.Match{Kind: faultreg.Manifest}, faultreg.NewHold().After(100))
			return ref
		}, "no byte arrived"},
		{"no such host", func(t *testing.T, e *harness.Env) string {
			e.Prefix = harness.Network(t).Prefix()
			return "registry.invalid/team/app:v1"
		}, "registry.invalid"},
		{"no HTTP", func(t *testing.T, _ *harness.Env) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Write([]byte("220 mail.example ESMTP\r\n"))
					c.Close()
				}
			}()
			return l.Addr().String() + "/team/app:v1"
		}, "127.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			ref := tt.prepare(t, e)
			refused(t, e, 5, []string{tt.says}, "--stall-timeout", "1s", ref, e.MountDir())
		})
	}
}

// TestWrongManifestByDigest: the registry gives another manifest than the one that was asked for by digest.
func TestWrongManifestByDigest(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	asked, given := harness.Fixture(t, "basic"), harness.Fixture(t, "minimal")
	e.Push(asked)
	srv := e.Registry()
	srv.On(faultreg.Match{Kind: faultreg.Manifest},
		faultreg.Body("application/vnd.oci.image.manifest.v1+json", given.OCIManifest()))
	ref := srv.Ref("team/app", asked.ManifestDigest())
	refused(t, e, 4, []string{asked.ManifestDigest(), given.ManifestDigest()}, ref, e.MountDir())
}
