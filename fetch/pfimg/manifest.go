package pfimg

import (
	"time"

	"github.com/pfmount/pfmount/sign"
)

// MediaType is the media type of a pf manifest, in the manifest itself and as the OCI config.
const MediaType = "application/vnd.processfork.image.v1+json"

// Schema is the one schema_version that this package reads.
const Schema = 1

// Manifest is the signed root of an image. Every digest in it is signed.
type Manifest struct {
	Signed
	Agent   Agent
	Model   Model
	Cache   Cache
	World   World
	Effects Effects
	Trace   Trace
	Created time.Time // created_at; stands in for the mtime of everything in the image
	Parents []Digest  // ids of the images that this one came from; two mean a merge
}

// Signed is where a manifest comes from: the bytes that were verified, which Raw and Signature
// share with others and which must not be changed.
type Signed struct {
	ID        Digest // SHA-256 of Raw: the image's id
	Raw       []byte // manifest.json
	Signature []byte // manifest.json.sig, nil when the image has none
	Signer    sign.Signer
}

// Agent says which program's session this is.
type Agent struct{ Kind, Version, Fingerprint string }

// Model names the model's bytes and the difference to them.
type Model struct{ Base, Diff Digest }

// Cache names the page table of the KV cache.
type Cache struct {
	Layout   string
	Manifest Digest
}

// World names the file tree, the environment and the processes.
type World struct{ FS, Env, Procs Digest }

// Effects names the ledger of the session's side effects.
type Effects struct{ Ledger Digest }

// Trace names the session's messages.
type Trace struct{ Messages Digest }

// TopBlob is one of the eight blobs that the manifest itself names. The tree has a directory at its
// path; its own bytes are in blobs/ only.
type TopBlob struct {
	Path   string // in the mount
	Digest Digest
}

// TopLevel returns the blobs that the manifest names, in the order in which they are pushed.
func (m *Manifest) TopLevel() [8]TopBlob {
	return [8]TopBlob{
		{"model/base", m.Model.Base},
		{"model/diff.json", m.Model.Diff},
		{"cache/manifest.json", m.Cache.Manifest},
		{"world/fs", m.World.FS},
		{"world/env.json", m.World.Env},
		{"world/procs.json", m.World.Procs},
		{"effects/ledger.jsonl", m.Effects.Ledger},
		{"trace/messages.jsonl", m.Trace.Messages},
	}
}
