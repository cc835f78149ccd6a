package e2e

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// keyOf is the key that a fixture needs, "" for the public one.
func keyOf(tag string) string {
	if tag == "keyed" {
		return "bike-team-key"
	}
	return ""
}

// TestFixtures mounts every fixture from everywhere it lives and looks at everything in the mount.
func TestFixtures(t *testing.T) {
	t.Parallel()
	sources := map[string]struct {
		tags []string // nil: all
		ref  func(e *harness.Env, tag string, img *imgbuild.Image) string
	}{
		"registry": {nil, func(e *harness.Env, _ string, img *imgbuild.Image) string { return e.Push(img) }},
		"layout": {nil, func(e *harness.Env, tag string, _ *imgbuild.Image) string {
			return "oci-layout:" + e.CopyFixture("layout") + ":" + tag
		}},
		"folder": {[]string{"fork-b"}, func(e *harness.Env, _ string, _ *imgbuild.Image) string {
			return "file://" + e.CopyFixture("file-registry")
		}},
		"store": {[]string{"minimal", "pages"}, func(e *harness.Env, _ string, img *imgbuild.Image) string {
			e.Set("PF_STORE", e.CopyFixture("store"))
			return "store:" + img.CID()
		}},
	}
	for name, source := range sources {
		tags := source.tags
		if tags == nil {
			tags = harness.FixtureTags(t)
		}
		for _, tag := range tags {
			t.Run(name+"/"+tag, func(t *testing.T) {
				harness.Once(t, func(t *testing.T, e *harness.Env) {
					img := harness.Fixture(t, tag)
					if key := keyOf(tag); key != "" {
						e.Set("PF_OCI_REG_SIGN_KEY", key)
					}
					m := e.Mount(source.ref(e, tag, img))
					m.Compare("world/fs", harness.Want(t, tag))
					compareRest(t, m, img, name != "store")
					compareBlobs(t, m, img)
				})
			})
		}
	}
}

// compareRest looks at everything outside world/fs and blobs: the manifest's and signature's bytes, the
// layer files, the pages, and that nothing else is there.
func compareRest(t *testing.T, m *harness.Mount, img *imgbuild.Image, signed bool) {
	t.Helper()
	want := map[string]string{"manifest.json": harness.SHA256(img.Manifest)}
	if signed {
		want["manifest.json.sig"] = harness.SHA256(img.Signature)
	}
	for _, path := range img.Paths() {
		if !strings.HasPrefix(path, "world/fs/") {
			want[path] = strings.TrimPrefix(img.Digest(path), "sha256:")
		}
	}
	dirs := []string{"blobs", "cache", "cache/pages", "effects", "model", "trace", "world", "world/fs"}
	for _, n := range m.Tree("", true) {
		if strings.HasPrefix(n.Path, "world/fs/") || strings.HasPrefix(n.Path, "blobs/") {
			continue
		}
		if n.Kind == "dir" {
			if !slices.Contains(dirs, n.Path) {
				t.Errorf("unexpected folder %s", n.Path)
			}
			continue
		}
		if want[n.Path] == "" || want[n.Path] != n.SHA256 {
			t.Errorf("%s: %s with content %s, want content %q", n.Path, n.Kind, n.SHA256, want[n.Path])
		}
		delete(want, n.Path)
	}
	for path := range want {
		t.Errorf("%s is missing", path)
	}
	if got := m.Read("manifest.json"); !bytes.Equal(got, img.Manifest) {
		t.Errorf("manifest.json is not verbatim: %s", got)
	}
}

// compareBlobs: every blob of the image is under its digest, hashes to it, and there are no others.
func compareBlobs(t *testing.T, m *harness.Mount, img *imgbuild.Image) {
	t.Helper()
	want := map[string]bool{}
	for _, l := range img.Layers {
		if hex, ok := strings.CutPrefix(l.Logical, "sha256:"); ok {
			want["sha256/"+hex[:2]+"/"+hex] = true
		}
	}
	for _, n := range m.Tree("blobs", true) {
		if n.Kind == "dir" {
			continue
		}
		if !want[n.Path] || !strings.HasSuffix(n.Path, "/"+n.SHA256) {
			t.Errorf("blobs/%s: expected %v, content hashes to %s", n.Path, want[n.Path], n.SHA256)
		}
		delete(want, n.Path)
	}
	for path := range want {
		t.Errorf("blobs/%s is missing", path)
	}
}

// TestKeyed: which keys open an image that was signed with a key, and one that was signed with the
// public one.
func TestKeyed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, tag string
		env       map[string]string
		key       string // content of --key-file
		options   []string
		code      int
		stderr    string
	}{
		{"no key", "keyed", nil, "", nil, 4, "signature"},
		{"variable", "keyed", map[string]string{"PF_OCI_REG_SIGN_KEY": "bike-team-key"}, "", nil, 0, ""},
		{"file", "keyed", nil, "bike-team-key", nil, 0, ""},
		{"file with newline", "keyed", nil, "bike-team-key\n", nil, 0, ""},
		{"file with CR LF", "keyed", nil, "bike-team-key\r\n", nil, 0, ""},
		{"file with two newlines", "keyed", nil, "bike-team-key\n\n", nil, 4, "signature"},
		{"file beats variable", "keyed", map[string]string{"PF_OCI_REG_SIGN_KEY": "other"},
			"bike-team-key", nil, 0, ""},
		{"wrong variable", "keyed", map[string]string{"PF_OCI_REG_SIGN_KEY": "other"}, "", nil, 4,
			"signature"},
		{"variable with newline", "keyed",
			map[string]string{"PF_OCI_REG_SIGN_KEY": "bike-team-key\n"}, "", nil, 4, "signature"},
		{"empty variable", "keyed", map[string]string{"PF_OCI_REG_SIGN_KEY": ""}, "", nil, 1,
			"PF_OCI_REG_SIGN_KEY"},
		{"folders' variable", "keyed", map[string]string{"PF_FILE_REG_SIGN_KEY": "bike-team-key"},
			"", nil, 4, "signature"},
		{"empty file", "keyed", nil, "\n", nil, 1, "key"},
		{"skipped", "keyed", nil, "", []string{"--insecure-skip-verify"}, 0, ""},
		{"public, warned", "minimal", nil, "", nil, 0, "key"},
		{"public, refused", "minimal", nil, "", []string{"--require-key"}, 1, "--key-file"},
		{"public, but a key given", "minimal", nil, "bike-team-key", nil, 4, "signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			for k, v := range tt.env {
				e.Set(k, v)
			}
			options := tt.options
			if tt.key != "" {
				options = append(options, "--key-file", e.WriteFile("key", []byte(tt.key), 0o600))
			}
			ref, dir := e.Push(harness.Fixture(t, tt.tag)), e.MountDir()
			e.Run(append(options, ref, dir)...).Want(t, tt.code, tt.stderr)
			if tt.code == 0 {
				e.Mounted(ref, dir).Compare("world/fs", harness.Want(t, tt.tag))
			} else if lines := harness.MountLines(t, dir); len(lines) > 0 {
				t.Errorf("mounted all the same: %v", lines)
			}
		})
	}
}
