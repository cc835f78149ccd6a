package sign

import (
	"bytes"
	"crypto/sha256"
)

// Signer says whose key a signature was checked with.
type Signer string

const (
	// SignerDefault is the public DefaultKey: the bytes are whole, the author is unknown.
	SignerDefault Signer = "default"
	// SignerGiven is a key of the policy.
	SignerGiven Signer = "given"
	// SignerNone means that no signature was checked; Verified.Why says why.
	SignerNone Signer = "none"
)

// Verified is a manifest that may be parsed. Only Policy.Verify and Unverified make one that holds
// bytes, so a parser that takes a Verified cannot see bytes without a decision.
type Verified struct {
	manifest, signature []byte
	signer              Signer
	why                 string
}

// Unverified lets a manifest through whose signature was not checked. It is for local stores (which
// have none), for --insecure-skip-verify, and for fuzz targets; why goes to the user. sig may be
// nil.
func Unverified(manifest, sig []byte, why string) Verified {
	return Verified{
		manifest:  bytes.Clone(manifest),
		signature: bytes.Clone(sig),
		signer:    SignerNone,
		why:       why,
	}
}

// Bytes returns the manifest, verbatim. It is shared: do not change it.
func (v Verified) Bytes() []byte { return v.manifest }

// Signature returns the signature's JSON, verbatim, nil when there is none. It is shared: do not
// change it.
func (v Verified) Signature() []byte { return v.signature }

// ID returns the SHA-256 of the manifest: the image's id.
func (v Verified) ID() [32]byte { return sha256.Sum256(v.manifest) }

// Signer says whose key the signature was checked with.
func (v Verified) Signer() Signer {
	if v.signer == "" {
		return SignerNone
	}
	return v.signer
}

// Why says why the signature was not checked; it is empty when it was.
func (v Verified) Why() string { return v.why }
