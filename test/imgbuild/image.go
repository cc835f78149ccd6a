package imgbuild

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Media types of the artifact.
const (
	ManifestType  = "application/vnd.oci.image.manifest.v1+json"
	ConfigType    = "application/vnd.processfork.image.v1+json"
	SignatureType = "application/vnd.processfork.signature.v1+json"
	LayerType     = "application/vnd.processfork.layer.v1+zstd"
)

// pathAnnotation names a layer's file.
const pathAnnotation = "org.processfork.path"

// Image is a built image. Its fields may be changed before it is written: they are what is written.
type Image struct {
	Manifest   []byte // the pf manifest, the artifact's config
	Signature  []byte
	ConfigType string  // media type of the config
	Layers     []Layer // as the OCI manifest lists them; the signature is Layers[0] of a sound image
	digests    map[string]string
}

// Layer is one descriptor and the bytes behind it. Digest and Size are what the descriptor says.
type Layer struct {
	MediaType   string
	Digest      string
	Size        int64
	Path        string            // the path annotation; "" leaves it out
	Annotations map[string]string // further annotations
	Logical     string            // digest of the decoded bytes; "" for the signature
	Wire        Blob
}

func newLayer(b Blob, logical string) Layer {
	hex := strings.TrimPrefix(logical, "sha256:")
	return Layer{
		MediaType: LayerType, Digest: b.Digest, Size: b.Size, Logical: logical, Wire: b,
		Path: "blobs/sha256/" + hex[:2] + "/" + hex + ".zst",
	}
}

// SetWire puts other stored bytes under the layer's name, with a descriptor that describes them.
func (l *Layer) SetWire(data []byte) {
	l.Wire = NewBlob(data)
	l.Digest, l.Size = l.Wire.Digest, l.Wire.Size
}

// CID is the image's id, the hex SHA-256 of its pf manifest.
func (m *Image) CID() string { return strings.TrimPrefix(digestOf(m.Manifest), "sha256:") }

// SetManifest puts another pf manifest in and signs it; an empty key is DefaultKey.
func (m *Image) SetManifest(raw []byte, key string) {
	m.Manifest, m.digests = raw, nil
	m.SetSignature(Sign(raw, key))
}

// SetSignature puts other signature bytes in, right or wrong.
func (m *Image) SetSignature(raw []byte) {
	m.Signature = raw
	b := NewBlob(raw)
	m.Layers[0] = Layer{MediaType: SignatureType, Digest: b.Digest, Size: b.Size,
		Path: "manifest.json.sig", Wire: b}
}

// Layer finds the layer of a logical digest; it panics when there is none, which is the test's mistake.
func (m *Image) Layer(logical string) *Layer {
	for i := range m.Layers {
		if m.Layers[i].Logical == logical && logical != "" {
			return &m.Layers[i]
		}
	}
	panic("imgbuild: no layer " + logical)
}

// Drop removes the layer of a logical digest.
func (m *Image) Drop(logical string) {
	m.Layers = slices.DeleteFunc(m.Layers,
		func(l Layer) bool { return l.Logical == logical && logical != "" })
}

// WireOf gives the wire digest of the layer behind a path in the mount, as requests name it.
func (m *Image) WireOf(path string) string { return m.Layer(m.Digest(path)).Digest }

// Digest gives the logical digest behind a path in the mount ("world/fs/a", "model/base",
// "cache/pages/00000000.k") or a manifest field ("world.fs"). It panics on an unknown path, and, for
// paths below the tree and the page table, when these are too hostile to be read.
func (m *Image) Digest(path string) string {
	if m.digests == nil {
		if err := m.resolve(); err != nil {
			panic(fmt.Sprintf("imgbuild: image %s: %v", m.CID(), err))
		}
	}
	if d, ok := m.digests[path]; ok {
		return d
	}
	if err := m.resolveBelow(); err != nil {
		panic(fmt.Sprintf("imgbuild: image %s: %v", m.CID(), err))
	}
	if d, ok := m.digests[path]; ok {
		return d
	}
	panic("imgbuild: image " + m.CID() + " has no " + path)
}

// Paths lists the paths in the mount that Digest knows: top-level blobs, tree entries with a blob, pages.
func (m *Image) Paths() []string {
	m.Digest("world.fs") // resolves the manifest
	if err := m.resolveBelow(); err != nil {
		panic(fmt.Sprintf("imgbuild: image %s: %v", m.CID(), err))
	}
	var paths []string
	for p := range m.digests {
		if strings.Contains(p, "/") {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// TopPaths are the mount's names of the manifest's blobs that it shows as files.
var TopPaths = map[string]string{
	"model.base": "model/base", "model.diff": "model/diff.json", "cache.manifest": "cache/manifest.json",
	"world.env": "world/env.json", "world.procs": "world/procs.json",
	"effects.ledger": "effects/ledger.jsonl", "trace.messages": "trace/messages.jsonl",
}

// resolve reads the manifest's eight digests.
func (m *Image) resolve() error {
	var sections map[string]json.RawMessage
	if err := json.Unmarshal(m.Manifest, &sections); err != nil {
		return err
	}
	m.digests = map[string]string{}
	for _, field := range TopFields {
		section, name, _ := strings.Cut(field, ".")
		var values map[string]string
		if err := json.Unmarshal(sections[section], &values); err != nil {
			return err
		}
		d := strings.ToLower(values[name])
		m.digests[field] = d
		if path, ok := TopPaths[field]; ok {
			m.digests[path] = d
		}
	}
	return nil
}

// resolveBelow reads the digests in the tree and the page table.
func (m *Image) resolveBelow() error {
	var tree struct {
		Entries []struct{ Path, Blob string }
	}
	if err := m.decodeJSON("world.fs", &tree); err != nil {
		return err
	}
	for _, e := range tree.Entries {
		if e.Blob != "" {
			m.digests["world/fs/"+e.Path] = e.Blob
		}
	}
	var table struct {
		Pages []struct {
			Ix   int
			K, V string
		}
	}
	if err := m.decodeJSON("cache.manifest", &table); err != nil {
		return err
	}
	for _, p := range table.Pages {
		m.digests[fmt.Sprintf("cache/pages/%08d.k", p.Ix)] = p.K
		m.digests[fmt.Sprintf("cache/pages/%08d.v", p.Ix)] = p.V
	}
	return nil
}

// decodeJSON reads a top-level JSON blob when its layer is there and sound.
func (m *Image) decodeJSON(field string, into any) error {
	i := slices.IndexFunc(m.Layers, func(l Layer) bool { return l.Logical == m.digests[field] })
	if i < 0 {
		return fmt.Errorf("%s: no layer", field)
	}
	data, err := m.Layers[i].Wire.decode()
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// Decoded gives the decoded bytes of the layer behind a path in the mount or a manifest field.
func (m *Image) Decoded(path string) ([]byte, error) { return m.Layer(m.Digest(path)).Wire.decode() }
