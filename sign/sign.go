// Package sign says whose image a ProcessFork manifest is: signature algorithms, keys, and the
// policy that chooses among them. It promises that a Verified value exists only for bytes whose
// signature was checked before anything parsed them, or that were let through loudly by Unverified.
// It does no I/O, keeps no state, and knows neither registries nor what a manifest says.
package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// HMACSHA256 is the algorithm of every signature that the reference tool writes: HMAC-SHA256 over
// the manifest's bytes, in lower-case hex. "cosign-key" and "cosign-keyless" are names reserved
// upstream.
const HMACSHA256 = "hmac-sha256"

// DefaultKey is the key that the reference tool signs and verifies with when none is given. It is
// public, so a signature by it proves that the bytes are whole and nothing about the author.
const DefaultKey = "processfork-default-self-sign-key.v1"

// maxBytes bounds manifest and signature: 1 MiB each. Real ones have about 1 KB and 191 bytes.
const maxBytes = 1 << 20

var (
	// ErrSignature says that a signature does not verify: missing, malformed, or made over other
	// bytes or with another key.
	ErrSignature = errors.New("signature does not verify")
	// ErrAlgorithm says that a signature uses an algorithm that is not supported; the message names
	// it.
	ErrAlgorithm = errors.New("signature algorithm not supported")
	// ErrKey says that a key is unusable or missing: a mistake of the caller, not of the image.
	ErrKey = errors.New("unusable key")
)

// Sign returns the signature of manifest as JSON, byte for byte as the reference tool writes it. As
// in a Policy without keys, an empty key stands for DefaultKey.
func Sign(manifest []byte, key Key) []byte {
	if len(key) == 0 {
		key = Key(DefaultKey)
	}
	id := sha256.Sum256(manifest)
	return fmt.Appendf(nil, `{"algorithm":"%s","manifest_digest":"%s","signature":"%s"}`,
		HMACSHA256, hex.EncodeToString(id[:]), hex.EncodeToString(mac(manifest, key)))
}

// mac is HMAC-SHA256 over the manifest's bytes (not over their digest).
func mac(manifest []byte, key Key) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(manifest)
	return h.Sum(nil)
}
