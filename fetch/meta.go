package fetch

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// Meta is a cache of small things that were verified.
type Meta interface {
	// Bytes returns the content whose SHA-256 is key, from the cache or by one run of fill, which writes nothing but
	// that content or fails. size is its length in bytes, -1 when unknown. Without a fill it is fs.ErrNotExist that the
	// cache lacks it.
	Bytes(ctx context.Context, key [32]byte, size int64, fill func(ctx context.Context, w artifact.Sink) error) ([]byte, error)
	// Get returns what was last Put under name; fs.ErrNotExist when there is nothing.
	Get(name string) ([]byte, error)
	Put(name string, data []byte) error
}

// noMeta is the Meta of who has none: it keeps nothing.
type noMeta struct{}

var _ Meta = noMeta{}

func (noMeta) Bytes(ctx context.Context, _ [32]byte, _ int64, fill func(context.Context, artifact.Sink) error) ([]byte, error) {
	if fill == nil {
		return nil, fs.ErrNotExist
	}
	var m artifact.Memory
	if err := fill(ctx, &m); err != nil {
		return nil, err
	}
	return m.Bytes(), nil
}

func (noMeta) Get(string) ([]byte, error) { return nil, fs.ErrNotExist }
func (noMeta) Put(string, []byte) error   { return nil }

// record is what is kept of a reference after its image was verified, for when its registry does not answer. Config
// and signature follow from the manifest; they are there for people who look.
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

// lastVerified returns the manifest's digest in the record of a reference. A record is only a hint of where to look:
// what it leads to is verified like anything else.
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
