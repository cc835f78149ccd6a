package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestMissingField: each field that the format requires, left out of a manifest that is signed all the same.
func TestMissingField(t *testing.T) {
	t.Parallel()
	fields := append([]string{"agent", "agent.kind", "agent.version", "agent.fingerprint", "model",
		"cache", "cache.layout",
		"world", "effects", "trace", "created_at", "schema_version", "media_type"}, imgbuild.TopFields[:]...)
	for _, field := range fields {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), harness.Fixture(t, "minimal")
			img.SetManifest(without(t, img.Manifest, field), "")
			ref := e.Serve(img)
			refused(t, e, 4, []string{field, "missing"}, ref, e.MountDir())
		})
	}
}

// without is a manifest without one field, "section" or "section.name".
func without(t *testing.T, manifest []byte, field string) []byte {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(manifest, &doc); err != nil {
		t.Fatal(err)
	}
	in, name := doc, field
	if section, sub, ok := strings.Cut(field, "."); ok {
		in, name = doc[section].(map[string]any), sub
	}
	if _, ok := in[name]; !ok {
		t.Fatalf("the manifest has no %s", field)
	}
	delete(in, name)
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestBadManifest: signed pf manifests that are not what the format allows.
func TestBadManifest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, old, now string
		code           int
		says           string
	}{
		{"schema 2", `"schema_version":1`, `"schema_version":2`, 2, "schema_version 2"},
		{"schema of text", `"schema_version":1`, `"schema_version":"1"`, 4, "schema_version"},
		{"huge schema", `"schema_version":1`, `"schema_version":1e99`, 4, "schema_version"},
		{"another media type", `processfork.image.v1+json`, `processfork.image.v7+json`, 2, "v7"},
		{"short digest", `"fs":"sha256:`, `"fs":"sha256:0","y":"`, 4, "digest"},
		{"sha512", `"fs":"sha256:`, `"fs":"sha512:`, 4, "digest"},
		{"bare digest", `"fs":"sha256:`, `"fs":"`, 4, "digest"},
		{"digest of a number", `"fs":"sha256:`, `"fs":7,"y":"`, 4, "/world/fs"},
		{"bad parent", `"parents":[`, `"parents":["x"`, 4, "manifest"},
		{"duplicate name", `"world":{`, `"world":{"env":"x","env":"x",`, 4, "duplicate"},
		{"duplicate section", `"world":{`, `"world":{},"world":{`, 4, "world"},
		{"wrong-case section", `"world":{`, `"World":{`, 4, "world is missing"},
		{"wrong-case name", `"fs":`, `"FS":`, 4, "world.fs is missing"},
		{"both spellings", `"created_at":`, `"createdAt":"2026-05-05T14:11:00Z","created_at":`, 4,
			"created_at"},
		{"time without zone", `"created_at":"`, `"created_at":"2026-05-05T14:11:00","x":"`, 4, "created_at"},
		{"time of words", `"created_at":"`, `"created_at":"yester\u001b[31mday","x":"`, 4, "created_at"},
		{"not UTF-8", `"kind":"`, "\"kind\":\"\xff", 4, "manifest"},
		{"nested", `"agent":{`, `"note":` + nested(200_000) + `,"agent":{`, 4, "nested"},
		{"something behind", `]}`, `]}{}`, 4, "manifest"},
		{"cut", `]}`, `]`, 4, "manifest"},
		{"an array", `{"schema_version"`, `[{"schema_version"`, 4, "manifest"},
		{"2 MiB", `"agent":{`, `"note":"` + strings.Repeat("x", 2<<20) + `","agent":{`, 4, "1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, img := harness.New(t, ""), harness.Build(t, imgbuild.Spec{})
			raw := strings.Replace(string(img.Manifest), tt.old, tt.now, 1)
			if raw == string(img.Manifest) {
				t.Fatalf("the manifest has no %s", tt.old)
			}
			img.SetManifest([]byte(raw), "")
			ref := e.Serve(img)
			refused(t, e, tt.code, []string{tt.says}, ref, e.MountDir())
		})
	}
}

// TestUnknownFields: what the format does not know is ignored, in manifest, tree and OCI manifest.
func TestUnknownFields(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{imgbuild.File("a", "0644",
		imgbuild.Text("a"))}})
	img.SetManifest([]byte(strings.Replace(string(img.Manifest), `"agent":{`,
		`"note":{"WORLD":[1,{"a":null}]},"agent":{"x":1,`, 1)), "")
	for i := range img.Layers {
		img.Layers[i].Annotations = map[string]string{"org.example.note": "\x1b[31m"}
	}
	img.Layers = append(img.Layers, imgbuild.Layer{MediaType: "text/plain",
		Digest: "sha256:" + strings.Repeat("0", 64), Size: 1 << 40})
	m := e.Mount(e.Serve(img))
	if got := string(m.Read("world/fs/a")); got != "a" {
		t.Errorf("read %q", got)
	}
	if got := string(m.Read("manifest.json")); got != string(img.Manifest) {
		t.Errorf("manifest.json is not verbatim: %s", got)
	}
}
