package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// examined is the JSON of doctor, as far as tests look at it.
type examined struct {
	Schema int
	Time   time.Time
	Checks []struct {
		Name, Outcome, Text, Advice string
		Seconds                     float64
		Values                      map[string]any
	}
}

// doctor runs `doctor --json` and fails the test unless it ends with code.
func doctor(t *testing.T, e *harness.Env, code int, args ...string) (examined, harness.Result) {
	t.Helper()
	r := e.Run(append([]string{"doctor", "--json"}, args...)...).Want(t, code)
	var got examined
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil || got.Schema != 1 ||
		time.Since(got.Time) > time.Hour {
		t.Fatalf("%v, schema %d: %v", err, got.Schema, r)
	}
	return got, r
}

// outcomes are all checks of the way to an image, in order: "manifest ok".
func (x examined) outcomes() (list []string) {
	for i, c := range x.Checks {
		if c.Name == "reference" {
			for _, c := range x.Checks[i:] {
				list = append(list, c.Name+" "+c.Outcome)
			}
		}
	}
	return list
}

// text is what a check says, its advice included.
func (x examined) text(name string) string {
	for _, c := range x.Checks {
		if c.Name == name {
			return c.Text + " -> " + c.Advice
		}
	}
	return ""
}

// snapshot lists all that lies below an Env's folder, with modes and times; the folder itself and
// that for temporary files are made and left by many.
func snapshot(e *harness.Env) (list []string) {
	filepath.WalkDir(e.Dir, func(path string, _ fs.DirEntry, err error) error {
		if fi, ierr := os.Lstat(path); err == nil && ierr == nil && path != e.Dir && path != e.Path("tmp") {
			list = append(list, path+" "+fi.ModTime().String()+" "+fi.Mode().String())
		}
		return nil
	})
	return list
}

// steps puts the outcomes of the way to an image's checks into one text.
func steps(outcomes string) []string {
	names := []string{"reference", "route", "credentials", "manifest", "signature", "top-level",
		"blob", "total"}
	list := []string{}
	for i, o := range strings.Fields(outcomes) {
		list = append(list, names[i]+" "+o)
	}
	return list
}

// TestDoctorImage: what doctor says of the way to an image, with everything that can be wrong
// there; nothing is left behind, and no cache is filled.
func TestDoctorImage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		set   func(s *site, srv *faultreg.Server) (ref string, options []string)
		code  int
		steps string
		says  map[string]string
	}{
		{"all well", func(s *site, _ *faultreg.Server) (string, []string) { return "", nil }, 0,
			"ok ok ok ok warn ok ok ok", map[string]string{
				"route": "registry.test:5000/v2/team/app/", "credentials": "none",
				"signature": "public default key", "blob": "verified",
			}},
		{"no reference", func(s *site, _ *faultreg.Server) (string, []string) { return "nothing", nil }, 1,
			"fail skipped skipped skipped skipped skipped skipped",
			map[string]string{"reference": "not an image reference"}},
		{"broken hosts.toml", func(s *site, _ *faultreg.Server) (string, []string) {
			s.etcFile("containerd/certs.d/_default/hosts.toml", []byte("\nca = own.pem\n"))
			return "", nil
		}, 1, "ok fail skipped skipped skipped skipped skipped", map[string]string{"route": "line 2"}},
		{"broken login file", func(s *site, _ *faultreg.Server) (string, []string) {
			s.e.Set("REGISTRY_AUTH_FILE", s.file("auth.json", []byte("{")))
			return "", nil
		}, 0, "ok ok warn ok warn ok ok ok", map[string]string{"credentials": "auth.json"}},
		{"a registry that wants a login", func(_ *site, srv *faultreg.Server) (string, []string) {
			srv.On(faultreg.Match{Kind: faultreg.Manifest},
				faultreg.Answer(401, "", "WWW-Authenticate", "Basic realm=x"))
			return "", nil
		}, 5, "ok ok ok fail skipped skipped skipped",
			map[string]string{"credentials": "none", "manifest": "docker login"}},
		{"no such host", func(s *site, _ *faultreg.Server) (string, []string) { return "none.invalid:5000/team/app:v1", nil }, 5,
			"ok ok ok fail skipped skipped skipped", map[string]string{"manifest": "getent hosts"}},
		{"nobody listens", func(s *site, _ *faultreg.Server) (string, []string) { return "registry.test:1/team/app:v1", nil }, 5,
			"ok ok ok fail skipped skipped skipped",
			map[string]string{"manifest": "connection refused: registry failed -> check that the host is up"}},
		{"a mirror that is down", func(s *site, _ *faultreg.Server) (string, []string) {
			s.etcFile("containerd/certs.d/_default/hosts.toml",
				[]byte("[host.\"https://mirror.test:1\"]\ncapabilities = [\"pull\", \"resolve\"]\n"))
			return "", nil
		}, 0, "ok ok ok ok warn ok ok ok", map[string]string{
			"route": "mirror.test:1/v2/team/app/ (pull, resolve), then",
		}},
		{"unknown authority", func(s *site, _ *faultreg.Server) (string, []string) {
			s.e.Unset("SSL_CERT_FILE")
			return "", nil
		}, 5, "ok ok ok fail skipped skipped skipped", map[string]string{"manifest": "--ca-file"}},
		{"no such tag", func(s *site, _ *faultreg.Server) (string, []string) { return "registry.test:5000/team/app:v2", nil }, 5,
			"ok ok ok fail skipped skipped skipped", map[string]string{"manifest": "404"}},
		{"another key", func(s *site, _ *faultreg.Server) (string, []string) {
			return "", []string{"--key-file", s.file("key", []byte("another key of 32 bytes, at least"))}
		}, 4, "ok ok ok ok fail skipped skipped", map[string]string{"signature": "--key-file"}},
		{"a damaged blob", func(s *site, srv *faultreg.Server) (string, []string) {
			s.img.Layer(s.img.Digest("world/env.json")).SetWire([]byte("no zstd"))
			srv.Serve(s.img, "team/app", "v1")
			return "", nil
		}, 4, "ok ok ok ok warn fail skipped ok", map[string]string{"top-level": "world/env.json"}},
		{"a blob that is missing", func(s *site, srv *faultreg.Server) (string, []string) {
			srv.On(faultreg.Match{Ref: s.img.WireOf("world/fs/f")}, faultreg.Answer(404, ""))
			return "", nil
		}, 4, "ok ok ok ok warn ok fail ok", map[string]string{"blob": "missing from the image"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			srv, ref := s.registry("5000", s.conf("registry.test"))
			s.e.Set("SSL_CERT_FILE", s.file("ca.pem", s.ca.PEM))
			other, options := tt.set(s, srv)
			if other != "" {
				ref = other
			}
			before := snapshot(s.e)
			got, r := doctor(t, s.e, tt.code, append(options, ref)...)
			if !slices.Equal(got.outcomes(), steps(tt.steps)) {
				t.Errorf("got %q\nwant %q\n%v", got.outcomes(), steps(tt.steps), r)
			}
			for name, text := range tt.says {
				if !strings.Contains(got.text(name), text) {
					t.Errorf("%s says %q, want %q", name, got.text(name), text)
				}
			}
			if after := snapshot(s.e); !slices.Equal(before, after) {
				t.Errorf("doctor changed files:\n%q\n%q", before, after)
			}
		})
	}
}
