package imgbuild

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// refName is the annotation that carries a layout's tag.
const refName = "org.opencontainers.image.ref.name"

type layoutIndex struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	Manifests     []layoutManifest `json:"manifests"`
}

type layoutManifest struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func readIndex(dir string) (layoutIndex, error) {
	var index layoutIndex
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return index, err
	}
	return index, json.Unmarshal(data, &index)
}

// Tags lists the tags of an OCI layout in its order.
func Tags(dir string) ([]string, error) {
	index, err := readIndex(dir)
	var tags []string
	for _, m := range index.Manifests {
		tags = append(tags, m.Annotations[refName])
	}
	return tags, err
}

// FromLayout reads an image of an OCI layout; its blobs stay in the layout's files.
func FromLayout(dir, tag string) (*Image, error) {
	index, err := readIndex(dir)
	if err != nil {
		return nil, err
	}
	for _, m := range index.Manifests {
		if m.Annotations[refName] == tag {
			return fromManifest(dir, m.Digest)
		}
	}
	return nil, fmt.Errorf("%s has no tag %s", dir, tag)
}

func fromManifest(dir, digest string) (*Image, error) {
	file := func(d string) string {
		return filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(d, "sha256:"))
	}
	raw, err := os.ReadFile(file(digest))
	if err != nil {
		return nil, err
	}
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations"`
	}
	var oci struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(raw, &oci); err != nil {
		return nil, err
	}
	img := &Image{ConfigType: oci.Config.MediaType}
	if img.Manifest, err = os.ReadFile(file(oci.Config.Digest)); err != nil {
		return nil, err
	}
	for _, d := range oci.Layers {
		blob, err := fileBlob(file(d.Digest), d.Digest)
		if err != nil {
			return nil, err
		}
		l := Layer{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size,
			Path: d.Annotations[pathAnnotation], Wire: blob}
		if d.MediaType == SignatureType {
			if img.Signature, err = blob.Bytes(); err != nil {
				return nil, err
			}
		} else {
			l.Logical = "sha256:" + strings.TrimSuffix(path.Base(l.Path), ".zst")
		}
		img.Layers = append(img.Layers, l)
	}
	return img, nil
}
