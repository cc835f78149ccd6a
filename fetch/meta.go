package fetch

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Meta is a cache of small things that were verified.
type Meta interface {
	// Bytes returns the content whose SHA-256 is key, from the cache or by one run of fill, which writes nothing but
	// that content or fails. size is its length in bytes, -1 when unknown. Without a fill it is fs.ErrNotExist that the
	// cache lacks it.
	Bytes(ctx context.Context, key [32]byte, size int64, fill func(ctx context.Context, w Sink) error) ([]byte, error)
	// Get returns what was last Put under name; fs.ErrNotExist when there is nothing.
	Get(name string) ([]byte, error)
	Put(name string, data []byte) error
}

// noMeta is the Meta of who has none: it keeps nothing.
type noMeta struct{}

var _ Meta = noMeta{}

func (noMeta) Bytes(ctx context.Context, _ [32]byte, _ int64, fill func(context.Context, Sink) error) ([]byte, error) {
	if fill == nil {
		return nil, fs.ErrNotExist
	}
	var m memory
	if err := fill(ctx, &m); err != nil {
		return nil, err
	}
	return m.bytes(), nil
}

func (noMeta) Get(string) ([]byte, error) { return nil, fs.ErrNotExist }
func (noMeta) Put(string, []byte) error   { return nil }

// memory is a Sink that grows in pieces, so that a long manifest is never held twice while it arrives.
type memory struct{ pieces [][]byte }

const memoryPiece = 1 << 20

var _ Sink = (*memory)(nil)

func (m *memory) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		last := len(m.pieces) - 1
		if last < 0 || len(m.pieces[last]) == cap(m.pieces[last]) {
			size := memoryPiece
			if last < 0 {
				size = 16 << 10 // most manifests are short
			}
			m.pieces = append(m.pieces, make([]byte, 0, size))
			last++
		}
		piece := m.pieces[last]
		n := min(len(rest), cap(piece)-len(piece))
		m.pieces[last] = append(piece, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

func (m *memory) Reset() error {
	m.pieces = nil
	return nil
}

func (m *memory) bytes() []byte {
	size := 0
	for _, p := range m.pieces {
		size += len(p)
	}
	all := make([]byte, 0, size)
	for _, p := range m.pieces {
		all = append(all, p...)
	}
	return all
}

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
func lastVerified(meta Meta, ref Ref) (pfimg.Digest, error) {
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
