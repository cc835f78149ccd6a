package fetch

import (
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
)

// Meta is a cache of small things that were verified.
type Meta interface {
	registry.ManifestCache
	// Get returns what was last Put under name; fs.ErrNotExist when there is nothing.
	Get(name string) ([]byte, error)
	Put(name string, data []byte) error
}

// noMeta is a Meta that keeps nothing.
type noMeta struct{ registry.NoCache }

var _ Meta = noMeta{}

func (noMeta) Get(string) ([]byte, error) { return nil, fs.ErrNotExist }
func (noMeta) Put(string, []byte) error   { return nil }

// record is what is kept of a reference after its image was verified, for when its registry does
// not answer. Config and signature follow from the manifest; they are for people that look at the
// file.
type record struct {
	Reference string `json:"reference"`
	Manifest  string `json:"manifest_digest"`
	Config    string `json:"config_digest"`
	Signature string `json:"signature_digest,omitempty"`
}

// save keeps the record of a verified image.
func (r record) save(meta Meta) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return meta.Put(r.Reference, data)
}

// RecordedReference returns the reference that data is the record of, "" when it is no record.
func RecordedReference(data []byte) string {
	var r record
	if json.Unmarshal(data, &r) != nil {
		return ""
	}
	return r.Reference
}

// lastVerified returns the manifest's digest in the record of a reference. A record is only a hint
// of where to look: what it leads to is verified like anything else.
func lastVerified(meta Meta, ref ref.Ref) (pfimg.Digest, error) {
	data, err := meta.Get(ref.String())
	if err != nil {
		return pfimg.Digest{}, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return pfimg.Digest{}, fmt.Errorf("record of %s: %w", ref, fs.ErrNotExist)
	}
	return pfimg.ParseDigest(r.Manifest)
}
