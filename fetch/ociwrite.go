package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/pfmount/pfmount/fetch/pfimg"
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

// ociManifest returns the OCI manifest for the destination: the image's own, when it says exactly what is carried, else
// a new one.
func (c Cargo) ociManifest(ctx context.Context, sig []byte, items []storedBlob) ([]byte, error) {
	if c.verbatim(sig, items) {
		return c.Image.ociBytes(ctx)
	}
	return writeManifest(c.Image.manifest.Raw, sig, items)
}

// verbatim says that the image's own OCI manifest lists the parts that are carried, each once, and nothing else.
func (c Cargo) verbatim(sig []byte, items []storedBlob) bool {
	r := c.Image.reader.root
	if r.oci == nil || len(r.oci.signatures) != 1 || !bytes.Equal(sig, r.signature) ||
		r.oci.layers != 1+len(items) || len(r.oci.unnamed) > 0 {
		return false
	}
	for _, it := range items {
		if l := r.find(it.logical); len(l) != 1 || l[0].wire != it.wire {
			return false
		}
	}
	return true
}

// ociBytes reads the image's own OCI manifest again.
func (im *Image) ociBytes(ctx context.Context) ([]byte, error) {
	want, err := pfimg.ParseDigest(im.reader.root.digest)
	if err != nil {
		return nil, err
	}
	raw, err := im.reader.root.raw(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: OCI manifest: %w", im.name(), err)
	}
	if got := hashOf(raw); got != wireDigest(want) {
		return nil, fmt.Errorf("%s: OCI manifest %s: the stored bytes hash to %s: %w", im.name(), want, got, pfimg.ErrIntegrity)
	}
	return raw, nil
}
