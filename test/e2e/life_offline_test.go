package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
)

// TestWithoutRegistry: a mount while the registry is away, or may not be asked: from the cache with
// a warning, where the cache has what it takes and today's keys accept it.
func TestWithoutRegistry(t *testing.T) {
	t.Parallel()
	gone := func(e *harness.Env) { e.Registry().Stop() }
	wedged := func(e *harness.Env) {
		e.Registry().On(faultreg.Match{}, faultreg.NewHold().Fault())
	}
	for name, tt := range map[string]struct {
		known   bool // mounted before
		fault   func(e *harness.Env)
		options []string
		code    int
		says    string
	}{
		"gone, known":     {true, gone, nil, 0, "opened from the cache"},
		"gone, not known": {false, gone, nil, 5, "refused"},
		"wedged, known": {true, wedged, []string{"--stall-timeout", "2s"}, 0,
			"opened from the cache"},
		"wedged, not known": {false, wedged, []string{"--stall-timeout", "2s"}, 5, "no byte arrived"},
		"offline, known": {true, func(*harness.Env) {}, []string{"--offline"}, 0,
			"opened from the cache"},
		"offline, not known": {false, func(*harness.Env) {}, []string{"--offline"}, 5, "offline"},
		"gone, another key":  {true, gone, []string{"--key-file", "key"}, 4, "signature"},
		"offline, another key": {true, func(*harness.Env) {},
			[]string{"--offline", "--key-file", "key"}, 4, "signature"},
		"offline, key required": {true, func(*harness.Env) {},
			[]string{"--offline", "--require-key"}, 1, "key"},
		"answers with an error": {true,
			func(e *harness.Env) { e.Registry().On(faultreg.Match{}, faultreg.Answer(500, "")) },
			nil, 0, "opened from the cache"},
		"answers that it is not": {true,
			func(e *harness.Env) { e.Registry().On(faultreg.Match{}, faultreg.Answer(404, "")) },
			nil, 5, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			harness.Once(t, func(t *testing.T, e *harness.Env) {
				img := harness.Build(t, lifeSpec())
				ref := e.Push(img)
				e.WriteFile("home/key", []byte("another"), 0o600)
				if tt.known {
					m := e.Mount(ref)
					m.Read("world/fs/fast")
					m.Unmount()
				}
				tt.fault(e)
				before, dir := len(e.Registry().Log()), e.MountDir()
				r := e.Run(append(tt.options, ref, dir)...).Want(t, tt.code, tt.says)
				if n := len(e.Registry().Log()) - before; n > 0 && strings.HasPrefix(name, "offline") {
					t.Errorf("%d requests while offline", n)
				}
				if tt.code != 0 {
					if lines := harness.MountLines(t, dir); len(lines) > 0 {
						t.Errorf("mounted all the same: %v", r)
					}
					return
				}
				m := e.Mounted(ref, dir)
				if got := string(m.Read("world/fs/fast")); got != "fast\n" {
					t.Errorf("what is cached: %q", got)
				}
				if _, err := m.ReadErr("world/fs/slow"); err == nil ||
					!strings.Contains(err.Error(), "input/output error") {
					t.Errorf("what is not cached: %v, want EIO", err)
				}
				if r := e.Run("status", m.Dir).Want(t, 0); !strings.Contains(r.Stdout, "offline") {
					t.Errorf("status: %v", r)
				}
			})
		})
	}
}

// TestTagMoves: a mount keeps its digest when its tag moves on; status says so when it is asked to
// look, and says of what it cannot tell why.
func TestTagMoves(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		old, next := harness.Fixture(t, "basic"), harness.Fixture(t, "minimal")
		srv := e.Registry()
		push := func() {
			if err := srv.Push(context.Background(), next, "team/app", "moving"); err != nil {
				t.Fatal(err)
			}
		}
		if err := srv.Push(context.Background(), old, "team/app", "moving"); err != nil {
			t.Fatal(err)
		}
		ref := srv.Ref("team/app", "moving")
		tagged, pinned := e.Mount(ref), e.Mount(srv.Ref("team/app", old.ManifestDigest()))
		file := e.Mount("oci-layout:" + e.CopyFixture("layout") + ":basic")
		check := func(m *harness.Mount, want string, digest string) {
			t.Helper()
			r := e.Run("status", "--check", "--json", m.Dir).Want(t, 0)
			var all struct {
				Mounts []struct {
					TagMoved  json.RawMessage `json:"tag_moved"`
					TagDigest string          `json:"tag_digest"`
					TagError  string          `json:"tag_error"`
					Digest    string          `json:"manifest_digest"`
				}
			}
			if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil || len(all.Mounts) != 1 {
				t.Fatalf("%v: %v", err, r)
			}
			got := all.Mounts[0]
			if string(got.TagMoved) != want || got.TagDigest != digest ||
				got.Digest != old.ManifestDigest() || (got.TagError != "") != (digest == "?") {
				if digest == "?" && string(got.TagMoved) == want && got.TagError != "" {
					return
				}
				t.Errorf("status of %s: %+v, want moved %s to %q", m.Ref, got, want, digest)
			}
		}
		srv.Reset()
		check(tagged, "false", old.ManifestDigest())
		if log := srv.Log(); len(log) != 1 || log[0].Method != "HEAD" {
			t.Errorf("a check made %d requests: %v", len(log), log)
		}
		check(pinned, "null", "")
		check(file, "false", old.ManifestDigest())
		push()
		check(tagged, "true", next.ManifestDigest())
		check(pinned, "null", "")
		tagged.Compare("world/fs", harness.Want(t, "basic"))
		if r := e.Run("status", "--check", tagged.Dir).Want(t, 0); !strings.Contains(r.Stdout,
			"moved on to "+next.ManifestDigest()) {
			t.Errorf("status: %v", r)
		}
		if r := e.Run("status", "--json", tagged.Dir).Want(t, 0); strings.Contains(r.Stdout, "tag_moved") {
			t.Errorf("status looks without being asked: %v", r)
		}
		srv.Stop()
		begin := time.Now()
		check(tagged, "null", "?")
		check(file, "false", old.ManifestDigest())
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("a check without the registry took %v", took)
		}
	})
}
