package sign

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// howToGiveAKey ends the messages about a missing key.
const howToGiveAKey = "give one with --key-file FILE, PF_OCI_REG_SIGN_KEY " +
	"(registries, layouts) or PF_FILE_REG_SIGN_KEY (file://)"

// Policy says which keys a manifest may be signed with. The zero value trusts the public
// DefaultKey.
type Policy struct {
	Keys     []Key // any match passes; empty: DefaultKey
	Require  bool  // DefaultKey is not enough, even when it is given as a key
	Insecure bool  // check no signature at all
}

// Verify checks sig, the signature's JSON, over the bytes of manifest, before anything parses
// these. Each may have 1 MiB. The error is ErrSignature, ErrAlgorithm, or ErrKey when the policy
// itself cannot be followed.
func (p Policy) Verify(manifest, sig []byte) (Verified, error) {
	keys, err := p.trusted()
	if err != nil {
		return Verified{}, err
	}
	if len(manifest) > maxBytes {
		return Verified{}, fmt.Errorf("manifest: %d bytes, the limit is %d: %w", len(manifest),
			maxBytes, ErrSignature)
	}
	if len(sig) > maxBytes {
		return Verified{}, fmt.Errorf("signature: %d bytes, the limit is %d: %w", len(sig),
			maxBytes, ErrSignature)
	}
	v := Unverified(manifest, sig,
		"the signature was not checked, because the policy says so (insecure)")
	if p.Insecure {
		return v, nil
	}
	// From here on only the copies are looked at: what was checked is what is handed out.
	s, err := parse(v.signature)
	if err != nil {
		return Verified{}, err
	}
	if v.signer, err = s.check(v.manifest, keys); err != nil {
		return Verified{}, err
	}
	v.why = ""
	return v, nil
}

// trusted returns the keys that a signature may be made with.
func (p Policy) trusted() ([]Key, error) {
	if p.Require && p.Insecure {
		return nil, fmt.Errorf(
			"policy: a key cannot be required while signatures are not checked: %w", ErrKey)
	}
	keys := make([]Key, 0, len(p.Keys)+1)
	for i, k := range p.Keys {
		switch {
		case len(k) == 0:
			return nil, fmt.Errorf("key %d: it is empty: %w", i+1, ErrKey)
		case p.Require && k.public():
		default:
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	if p.Require {
		return nil, fmt.Errorf(
			"a key of your own is required, and the public default is none: %s: %w", howToGiveAKey,
			ErrKey)
	}
	return append(keys, Key(DefaultKey)), nil
}

// check compares the signature with those that the keys make. It tries all keys and compares in
// constant time, so how long it takes tells nothing about them.
func (s signature) check(manifest []byte, keys []Key) (Signer, error) {
	id := sha256.Sum256(manifest)
	if !bytes.Equal(s.digest, id[:]) {
		return SignerNone, fmt.Errorf("signature: it is for manifest %x, this is %x: %w", s.digest,
			id, ErrSignature)
	}
	signer := SignerNone
	for _, k := range keys {
		if !hmac.Equal(s.mac, mac(manifest, k)) {
			continue
		}
		if !k.public() {
			signer = SignerGiven
		} else if signer == SignerNone {
			signer = SignerDefault
		}
	}
	if signer != SignerNone {
		return signer, nil
	}
	switch {
	case len(keys) == 1 && keys[0].public():
		return SignerNone, fmt.Errorf(
			"signature: it was not made with the public default key: %s: %w", howToGiveAKey,
			ErrSignature)
	case hmac.Equal(s.mac, mac(manifest, Key(DefaultKey))):
		return SignerNone, fmt.Errorf(
			"signature: it was made with the public default key, not with a key that was given: %w",
			ErrSignature)
	}
	return SignerNone, fmt.Errorf("signature: no key that was given made it (%d tried): %w",
		len(keys), ErrSignature)
}
