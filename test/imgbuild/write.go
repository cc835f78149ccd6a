package imgbuild

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// OCIManifest is the artifact's manifest with the descriptors as they stand.
func (m *Image) OCIManifest() []byte {
	var b bytes.Buffer
	b.Grow(1024 + 300*len(m.Layers))
	fmt.Fprintf(&b, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%s,"size":%d,"digest":%q},"layers":[`,
		ManifestType, quote(m.ConfigType), len(m.Manifest), digestOf(m.Manifest))
	for i, l := range m.Layers {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"mediaType":%s,"size":%d,"digest":%s`, quote(l.MediaType), l.Size, quote(l.Digest))
		if l.Path != "" || len(l.Annotations) > 0 {
			notes := map[string]string{}
			for k, v := range l.Annotations {
				notes[k] = v
			}
			if l.Path != "" {
				notes[pathAnnotation] = l.Path
			}
			text, _ := json.Marshal(notes) // strings always encode
			fmt.Fprintf(&b, `,"annotations":%s`, text)
		}
		b.WriteByte('}')
	}
	b.WriteString("]}")
	return b.Bytes()
}

// Config is the pf manifest as a blob.
func (m *Image) Config() Blob { return NewBlob(m.Manifest) }

// ManifestDigest is the digest of OCIManifest.
func (m *Image) ManifestDigest() string { return digestOf(m.OCIManifest()) }

// WriteLayout writes the image into the OCI layout dir under tag, beside what is there already.
func (m *Image) WriteLayout(dir, tag string) error {
	manifest := NewBlob(m.OCIManifest())
	blobs := []Blob{manifest, m.Config()}
	for _, l := range m.Layers {
		// A layout keeps a blob under the name that its descriptor gives, so a lie is a file of
		// other content.
		wire := l.Wire
		wire.Digest = l.Digest
		blobs = append(blobs, wire)
	}
	sums := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(sums, 0o755); err != nil {
		return err
	}
	for _, b := range blobs {
		if err := b.save(filepath.Join(sums, strings.TrimPrefix(b.Digest, "sha256:"))); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"),
		[]byte(`{"imageLayoutVersion": "1.0.0"}`), 0o644); err != nil {
		return err
	}
	index := layoutIndex{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
	if old, err := readIndex(dir); err == nil {
		index = old
	}
	index.Manifests = append(index.Manifests, layoutManifest{
		MediaType: ManifestType, Digest: manifest.Digest, Size: manifest.Size,
		Annotations: map[string]string{refName: tag},
	})
	data, err := json.MarshalIndent(index, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644)
}

// WriteFolder writes the image as a file:// folder; layers without a path annotation are left out.
func (m *Image) WriteFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), m.Manifest, 0o644); err != nil {
		return err
	}
	if m.Signature != nil {
		if err := os.WriteFile(filepath.Join(dir, "manifest.json.sig"), m.Signature, 0o644); err != nil {
			return err
		}
	}
	return m.writeNamed(dir)
}

// WriteStore writes the image into a reference store: images/<cid>.json, the manifest as a blob
// too, no signature.
func (m *Image) WriteStore(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "images"), 0o755); err != nil {
		return err
	}
	cid := m.CID()
	if err := os.WriteFile(filepath.Join(dir, "images", cid+".json"), m.Manifest, 0o644); err != nil {
		return err
	}
	self := newLayer(NewBlob(Compress(m.Manifest)), "sha256:"+cid)
	if err := self.Wire.save(filepath.Join(dir, self.Path)); err != nil {
		return err
	}
	return m.writeNamed(dir)
}

// writeNamed writes the zstd layers under the names of their annotations.
func (m *Image) writeNamed(dir string) error {
	for _, l := range m.Layers {
		if l.MediaType != LayerType || !strings.HasPrefix(l.Path, "blobs/") {
			continue
		}
		if err := l.Wire.save(filepath.Join(dir, l.Path)); err != nil {
			return err
		}
	}
	return nil
}

// save writes the blob to a file, world-readable, unless it is there.
func (b Blob) save(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	r, err := b.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
