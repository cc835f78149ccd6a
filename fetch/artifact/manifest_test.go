package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

const (
	hexA     = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	fixtures = "../../test/testdata/fixtures"
)

func TestLayerIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Layer{}); size != 80 {
		t.Errorf("a layer has %d bytes, want 80", size)
	}
}

func TestBlobName(t *testing.T) {
	tests := []struct {
		path string
		ok   bool
	}{
		{"blobs/sha256/aa/" + hexA + ".zst", true},
		{"blobs/sha256/" + hexA + ".zst", true},
		{"blobs/sha256/zz/" + strings.ToUpper(hexA) + ".zst", true},
		{"blobs/sha256/aa/bb/" + hexA + ".zst", false},
		{"blobs/sha256/aa/" + hexA, false},
		{"blobs/sha256/aa/" + hexA[1:] + ".zst", false},
		{"/blobs/sha256/aa/" + hexA + ".zst", false},
		{"", false},
	}
	for _, tt := range tests {
		if d, ok := blobName(tt.path); ok != tt.ok || ok && d.Hex() != hexA {
			t.Errorf("%q: got %s, %v, want %v", tt.path, d, ok, tt.ok)
		}
	}
}

func TestDecodeManifest(t *testing.T) {
	config := `"config":{"mediaType":"` + MediaTypeConfig + `","digest":"sha256:` + hexA + `","size":3}`
	layer := `{"mediaType":"` + MediaTypeLayer + `","digest":"sha256:` + hexA +
		`","size":5,"annotations":{"` + PathAnnotation +
		`":"blobs/sha256/aa/` + hexA + `.zst","` + DecodedSizeAnnotation + `":"9"}}`
	with := func(layers string) string { return `{"schemaVersion":2,` + config + `,"layers":[` + layers + `]}` }
	tests := []struct {
		name, doc string
		want      error
		text      string
		named     int
	}{
		{"one layer", with(layer), nil, "", 1},
		{"no layers", with(""), nil, "", 0},
		{"layers before config", `{"layers":[` + layer + `],` + config + `}`, nil, "", 1},
		{"the same layer twice", with(layer + "," + layer), nil, "", 1},
		{"escaped names", strings.ReplaceAll(with(layer), `"digest"`, `"\u0064igest"`), nil, "", 1},
		{"unknown fields", `{"x":{"y":[1,{"z":null}]},` + config + `,"layers":[` + layer + `]}`, nil, "", 1},
		{"null annotations", with(strings.Replace(layer, `"annotations":{`,
			`"annotations":null,"x":{`, 1)), nil, "", 0},
		{"foreign layer with odd fields",
			with(`{"mediaType":"text/plain","digest":"sha512:ab","size":-7}`), nil, "", 0},
		{"wrong case", strings.ReplaceAll(with(layer), `"layers"`, `"Layers"`),
			pfimg.ErrUnsupported, "without config and layers", 0},
		{"index", `{"schemaVersion":2,"mediaType":"` + MediaTypeIndex + `","manifests":[]}`,
			pfimg.ErrUnsupported, "index", 0},
		{"docker list", `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerList +
			`","manifests":[{}]}`, pfimg.ErrUnsupported, "index", 0},
		{"docker image", `{"schemaVersion":2,"mediaType":"` + MediaTypeDocker +
			`","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":1,"digest":"x"},"layers":[]}`, pfimg.ErrUnsupported, "a docker image", 0},
		{"docker schema 1", `{"schemaVersion":1,"fsLayers":[],"history":[]}`, pfimg.ErrUnsupported,
			"schema 1", 0},
		{"container image", `{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[]}`, pfimg.ErrUnsupported, "application/vnd.oci.image.config.v1+json", 0},
		{"artifact", `{"artifactType":"application/x.y","config":{"mediaType":"application/vnd.oci.empty.v1+json"},"layers":[]}`, pfimg.ErrUnsupported, "application/x.y", 0},
		{"schema 3", strings.Replace(with(layer), "2", "3", 1), pfimg.ErrUnsupported, "3", 0},
		{"empty object", `{}`, pfimg.ErrUnsupported, "without config", 0},
		{"array", `[]`, pfimg.ErrIntegrity, "want an object", 0},
		{"nothing", ``, pfimg.ErrIntegrity, "bad JSON", 0},
		{"html", `<!doctype html>`, pfimg.ErrIntegrity, "bad JSON", 0},
		{"cut", with(layer)[:60], pfimg.ErrIntegrity, "bad JSON", 0},
		{"something follows", with(layer) + `{}`, pfimg.ErrIntegrity, "bytes after", 0},
		{"duplicate name", `{` + config + `,` + config + `,"layers":[]}`, pfimg.ErrIntegrity, "duplicate", 0},
		{"duplicate name in a layer",
			with(strings.Replace(layer, `"size":5`, `"size":5,"size":6`, 1)), pfimg.ErrIntegrity,
			"duplicate", 0},
		{"invalid UTF-8", strings.Replace(with(layer), "zst", "z\xfft", 1), pfimg.ErrIntegrity, "UTF-8", 0},
		{"negative size", with(strings.Replace(layer, ":5", ":-5", 1)), pfimg.ErrIntegrity, "-5", 0},
		{"absurd size", with(strings.Replace(layer, ":5", ":9223372036854775807", 1)),
			pfimg.ErrIntegrity, "absurd", 0},
		{"size over int64", with(strings.Replace(layer, ":5", ":99999999999999999999", 1)),
			pfimg.ErrIntegrity, "whole number", 0},
		{"size with a fraction", with(strings.Replace(layer, ":5", ":5.5", 1)), pfimg.ErrIntegrity,
			"whole number", 0},
		{"size as text", with(strings.Replace(layer, ":5", `:"5"`, 1)), pfimg.ErrIntegrity,
			"want a number", 0},
		{"no size", with(strings.Replace(layer, `"size":5,`, "", 1)), pfimg.ErrIntegrity, "missing", 0},
		{"bad digest", with(strings.Replace(layer, hexA, "zz", 1)), pfimg.ErrIntegrity, "64 hex", 0},
		{"bad config digest", strings.Replace(with(layer), hexA, "zz", 1), pfimg.ErrIntegrity, "config", 0},
		{"layers is an object", `{` + config + `,"layers":{}}`, pfimg.ErrIntegrity, "want an array", 0},
		{"deep", `{"x":` + strings.Repeat("[", 200000) + strings.Repeat("]", 200000) + `}`,
			pfimg.ErrIntegrity, "nested more than", 0},
		{"a long string", `{"x":"` + strings.Repeat("a", 3<<20) + `"}`, pfimg.ErrIntegrity,
			"a token or white space of more than", 0},
		{"a long gap", `{` + strings.Repeat(" ", 3<<20) + `}`, pfimg.ErrIntegrity,
			"a token or white space of more than", 0},
	}
	for _, tt := range tests {
		m, err := ParseManifest(strings.NewReader(tt.doc), "")
		if !errors.Is(err, tt.want) || tt.want != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", tt.name, err, tt.want, tt.text)
			continue
		}
		if tt.want == nil && len(m.Named) != tt.named {
			t.Errorf("%s: got %d layers, want %d", tt.name, len(m.Named), tt.named)
		}
		if tt.named == 1 && (m.Named[0].Decoded != 9 || m.Named[0].Size != 5) {
			t.Errorf("%s: got %+v", tt.name, m.Named[0])
		}
	}
}

// TestHugeManifest decodes a manifest of as many layers as a GPU session has pages.
func TestHugeManifest(t *testing.T) {
	const layers = 77_238
	var doc bytes.Buffer
	fmt.Fprintf(&doc, `{"schemaVersion":2,"config":{"mediaType":%q,"digest":"sha256:%s","size":3},"layers":[`, MediaTypeConfig, hexA)
	for i := range layers {
		if i > 0 {
			doc.WriteByte(',')
		}
		fmt.Fprintf(&doc, `{"mediaType":%q,"digest":"sha256:%064x","size":100,"annotations":{%q:"blobs/sha256/%02x/%064x.zst"}}`,
			MediaTypeLayer, i, PathAnnotation, i%256, layers-i)
	}
	doc.WriteString("]}")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m, err := ParseManifest(bytes.NewReader(doc.Bytes()), "")
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 90*layers {
		t.Errorf("%d bytes a layer are kept, want at most 90", kept/layers)
	}
	d, err := pfimg.ParseDigest(fmt.Sprintf("sha256:%064x", 1))
	if err != nil {
		t.Fatal(err)
	}
	if l := m.Named.Find(d); len(l) != 1 || l[0].Wire.Hex() != fmt.Sprintf("%064x", layers-1) ||
		m.Layers != layers {
		t.Errorf("got %v of %d layers", l, m.Layers)
	}
}

func FuzzManifest(f *testing.F) {
	names, err := filepath.Glob(fixtures + "/layout/blobs/sha256/*")
	if err != nil || len(names) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		// Short ones: the engine would spend its time on making long ones shorter.
		if len(raw) < 4<<10 && bytes.Contains(raw, []byte(`"layers":`)) {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseManifest(struct{ io.Reader }{bytes.NewReader(raw)}, "")
		if err != nil {
			if !errors.Is(err, pfimg.ErrIntegrity) && !errors.Is(err, pfimg.ErrUnsupported) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if len(m.Named)+len(m.Unlabelled)+len(m.Signatures) > m.Layers || m.Config.Size < 0 ||
			m.WireBytes < 0 {
			t.Fatalf("%d+%d+%d layers of %d, %d bytes", len(m.Named), len(m.Unlabelled),
				len(m.Signatures), m.Layers, m.WireBytes)
		}
		for _, l := range m.Named {
			if found := m.Named.Find(l.Logical); len(found) == 0 || l.Size < 0 || l.Size > maxSize {
				t.Fatalf("layer %+v is not found", l)
			}
		}
	})
}
