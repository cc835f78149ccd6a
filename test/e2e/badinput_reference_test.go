package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
)

// TestBadReference: what does not parse is a usage error that quotes it, for every command.
func TestBadReference(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("ab", 32)
	tests := []struct{ name, ref, says string }{
		{"empty", "", "empty"},
		{"no host", "alice/sess:v1", "alice/sess:v1"},
		{"no repository", "ghcr.io/", "no repository"},
		{"a path", "./layout", "oci-layout:./layout"},
		{"another scheme", "https://ghcr.io/org/repo", `"https"`},
		{"capital letters", "ghcr.io/Org/repo", "Org"},
		{"double slash", "ghcr.io/a//b", "'/'"},
		{"dots", "ghcr.io/../b", "'/'"},
		{"empty tag", "ghcr.io/a:", "tag"},
		{"long tag", "ghcr.io/a:" + strings.Repeat("x", 129), "tag"},
		{"short digest", "ghcr.io/a@sha256:12", "64 hex"},
		{"another digest", "ghcr.io/a@sha512:" + hex, "64 hex"},
		{"port", "host:65536/a", "65535"},
		{"user", "user@ghcr.io/a", "user@ghcr.io/a"},
		{"newline", "ghcr.io/a\nb", "control"},
		{"escape sequence", "ghcr.io/a\x1b[31m", "control"},
		{"not UTF-8", "ghcr.io/a\xff", `\xff`},
		{"long", "ghcr.io/" + strings.Repeat("a", 5000), "4096"},
		{"no layout", "oci-layout:", "oci-layout:DIR"},
		{"relative folder", "file://dir", "three slashes"},
		{"short id", "store:12", "64 hex"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			refused(t, e, 1, []string{tt.says}, tt.ref, e.MountDir())
			for _, command := range [][]string{{"verify", tt.ref}, {"cat", tt.ref, "manifest.json"}} {
				refused(t, e, 1, []string{tt.says}, command...)
			}
		})
	}
}

// TestBadPlace: references that parse, but name nothing that can be read on this machine.
func TestBadPlace(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(e *harness.Env) string
		code    int
		says    []string
	}{
		{"no layout", func(e *harness.Env) string { return "oci-layout:" + e.Path("none") }, 5,
			[]string{"none"}},
		{"no such tag", func(e *harness.Env) string { return "oci-layout:" + e.CopyFixture("layout") + ":none" }, 5, []string{"none", "basic", "minimal"}},
		{"no tag given", func(e *harness.Env) string { return "oci-layout:" + e.CopyFixture("layout") }, 1, []string{"basic", "minimal"}},
		{"index is no JSON", func(e *harness.Env) string { return layoutWith(e, "index.json", "{") + ":basic" }, 4, []string{"index.json"}},
		{"index nested", func(e *harness.Env) string {
			return layoutWith(e, "index.json", `{"manifests":`+nested(200_000)+`}`) + ":basic"
		}, 4, []string{"index.json"}},
		{"layout of version 2", func(e *harness.Env) string {
			return layoutWith(e, "oci-layout", `{"imageLayoutVersion":"2.0.0"}`) + ":basic"
		}, 2, []string{"2.0.0"}},
		{"empty folder", func(e *harness.Env) string { return "file://" + e.MakeDir("empty") }, 5,
			[]string{"manifest.json"}},
		{"no folder", func(e *harness.Env) string { return "file://" + e.Path("none") }, 5, []string{"none"}},
		{"folder's manifest is a FIFO", func(e *harness.Env) string {
			dir := e.MakeDir("fifo")
			e.Sh(`mkfifo "$1"`, dir+"/manifest.json")
			return "file://" + dir
		}, 4, []string{"manifest.json", "regular"}},
		{"no such id", func(e *harness.Env) string {
			e.Set("PF_STORE", e.CopyFixture("store"))
			return "store:" + strings.Repeat("ab", 32)
		}, 5, []string{"abab"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			harness.Once(t, func(t *testing.T, e *harness.Env) {
				refused(t, e, tt.code, tt.says, tt.prepare(e), e.MountDir())
			})
		})
	}
}

// layoutWith is the fixtures' layout with another text in one of its files.
func layoutWith(e *harness.Env, name, text string) string {
	dir := e.CopyFixture("layout")
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		return err.Error()
	}
	return "oci-layout:" + dir
}
