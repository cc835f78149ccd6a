package artifact

import (
	"crypto/sha256"
	"encoding/json"
	"strconv"
)

// The OCI manifest with its fields in the order in which the reference tool writes them, so that
// the same image has the same digest.
type (
	ociDocument struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        ociDescriptor   `json:"config"`
		Layers        []ociDescriptor `json:"layers"`
	}
	ociDescriptor struct {
		MediaType   string    `json:"mediaType"`
		Size        int64     `json:"size"`
		Digest      string    `json:"digest"`
		Annotations *ociNotes `json:"annotations,omitempty"`
	}
	ociNotes struct { // sorted by name
		Decoded string `json:"dev.pfmount.decoded-size,omitempty"`
		Path    string `json:"org.processfork.path"`
	}
)

// WriteManifest returns the OCI manifest of an image with these parts.
func WriteManifest(config, sig []byte, items []StoredBlob) ([]byte, error) {
	doc := ociDocument{
		SchemaVersion: 2, MediaType: MediaTypeManifest,
		Config: ociDescriptor{
			MediaType: MediaTypeConfig,
			Size:      int64(len(config)),
			Digest:    DigestOf(config).String(),
		},
		Layers: make([]ociDescriptor, 0, len(items)+1),
	}
	doc.Layers = append(doc.Layers, ociDescriptor{
		MediaType: MediaTypeSignature, Size: int64(len(sig)), Digest: DigestOf(sig).String(),
		Annotations: &ociNotes{Path: "manifest.json.sig"},
	})
	for _, it := range items {
		notes := &ociNotes{Path: it.Logical.StoredPath()}
		if it.Decoded >= 0 {
			notes.Decoded = strconv.FormatInt(it.Decoded, 10)
		}
		doc.Layers = append(
			doc.Layers,
			ociDescriptor{
				MediaType:   MediaTypeLayer,
				Size:        it.Size,
				Digest:      it.Wire.String(),
				Annotations: notes,
			},
		)
	}
	return json.Marshal(doc)
}

// DigestOf returns the digest of stored bytes.
func DigestOf(b []byte) WireDigest { return sha256.Sum256(b) }
