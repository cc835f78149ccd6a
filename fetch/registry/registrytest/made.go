package registrytest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"math/rand/v2"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// Fixtures is the folder of the images that the reference tool made.
var Fixtures = filepath.Join(root(), "test", "testdata", "fixtures")

// root returns the module's folder: the first above the test's that has a go.mod.
func root() string {
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return "."
}

// DigestOf returns "sha256:…".
func DigestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// Layer is a layer of a made image.
type Layer struct {
	Content     []byte
	Wire        []byte            // nil: zstd of content
	mediaType   string            // "": MediaTypeLayer
	Annotations map[string]string // nil: the path annotation
	Size        int64             // 0: of wire
	digest      string            // "": of wire
}

// Logical returns the digest of the content.
func (p Layer) Logical() pfimg.Digest { return sha256.Sum256(p.Content) }

// Stored returns the bytes that the registry has.
func (p Layer) Stored() []byte {
	if p.Wire != nil {
		return p.Wire
	}
	return Compress(p.Content)
}

// WireDigest returns the digest that the OCI manifest names.
func (p Layer) WireDigest() string {
	if p.digest != "" {
		return p.digest
	}
	return DigestOf(p.Stored())
}

// BlobPath returns the path of the blob in a URL.
func (p Layer) BlobPath() string { return "/v2/a/blobs/" + p.WireDigest() }

// Compress returns one zstd frame.
func Compress(b []byte) []byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return enc.EncodeAll(b, nil)
}

// SignedManifest returns a pf manifest with its signature by the default key.
func SignedManifest(t testing.TB) (manifest, sig []byte) {
	t.Helper()
	layout := Ref(t, "oci-layout:"+Fixtures+"/layout:minimal")
	r, err := local.Open(layout, "", new(artifact.Counters)).Root(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r.Manifest, r.Signature
}

func desc(mediaType string, b []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": DigestOf(b), "size": len(b)}
}

// OCIManifest makes the OCI manifest of an image with these layers after the signature.
func OCIManifest(t testing.TB, parts ...Layer) []byte {
	t.Helper()
	pf, sig := SignedManifest(t)
	layers := []any{desc(artifact.MediaTypeSignature, sig)}
	for _, p := range parts {
		d := desc(artifact.MediaTypeLayer, p.Stored())
		d["digest"] = p.WireDigest()
		if p.mediaType != "" {
			d["mediaType"] = p.mediaType
		}
		if p.Size != 0 {
			d["size"] = p.Size
		}
		d["annotations"] = p.Annotations
		if p.Annotations == nil {
			name := p.Logical().Hex()
			d["annotations"] = map[string]string{
				artifact.PathAnnotation: "blobs/sha256/" + name[:2] + "/" + name + ".zst",
			}
		}
		layers = append(layers, d)
	}
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": artifact.MediaTypeManifest,
		"config": desc(artifact.MediaTypeConfig, pf), "layers": layers,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Ref parses a reference.
func Ref(t testing.TB, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Fixture reads a file below Fixtures.
func Fixture(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{Fixtures}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Noise returns n bytes that do not compress, the same for the same n.
func Noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}
