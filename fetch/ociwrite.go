package fetch

import (
	"crypto/sha256"
	"encoding/json"
	"strconv"
)

// The OCI manifest with its fields in the order in which the reference tool writes them, so that the same image has the
// same digest.
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

// writeManifest returns the OCI manifest of an image with these parts.
func writeManifest(config, sig []byte, items []storedBlob) ([]byte, error) {
	doc := ociDocument{
		SchemaVersion: 2, MediaType: mediaTypeManifest,
		Config: ociDescriptor{MediaType: MediaTypeConfig, Size: int64(len(config)), Digest: hashOf(config).String()},
		Layers: make([]ociDescriptor, 0, len(items)+1),
	}
	doc.Layers = append(doc.Layers, ociDescriptor{
		MediaType: MediaTypeSignature, Size: int64(len(sig)), Digest: hashOf(sig).String(),
		Annotations: &ociNotes{Path: "manifest.json.sig"},
	})
	for _, it := range items {
		hex := it.logical.Hex()
		notes := &ociNotes{Path: "blobs/sha256/" + hex[:2] + "/" + hex + ".zst"}
		if it.decoded >= 0 {
			notes.Decoded = strconv.FormatInt(it.decoded, 10)
		}
		doc.Layers = append(doc.Layers, ociDescriptor{MediaType: MediaTypeLayer, Size: it.size, Digest: it.wire.String(), Annotations: notes})
	}
	return json.Marshal(doc)
}

func hashOf(b []byte) wireDigest { return sha256.Sum256(b) }
