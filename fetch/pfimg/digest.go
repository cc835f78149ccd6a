package pfimg

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Digest is the SHA-256 of a blob's decoded bytes: its logical digest, the name by which signed data knows it.
// The digest of the stored, compressed bytes is another thing and has another type.
type Digest [32]byte

const digestPrefix = "sha256:"

// nothing is the digest of no bytes.
var nothing = Digest(sha256.Sum256(nil))

// ParseDigest reads "sha256:" and 64 hex digits of either case; anything else is ErrIntegrity.
func ParseDigest(s string) (Digest, error) {
	d, ok := parseDigest(s)
	if !ok {
		return Digest{}, fmt.Errorf("digest %s: want sha256: and 64 hex digits: %w", quote(s), ErrIntegrity)
	}
	return d, nil
}

func parseDigest[T ~string | ~[]byte](s T) (d Digest, ok bool) {
	if len(s) != len(digestPrefix)+2*len(d) || string(s[:len(digestPrefix)]) != digestPrefix {
		return d, false
	}
	for i := range d {
		hi, lo := nibble(s[len(digestPrefix)+2*i]), nibble(s[len(digestPrefix)+2*i+1])
		if hi|lo > 0xf {
			return Digest{}, false
		}
		d[i] = hi<<4 | lo
	}
	return d, true
}

// nibble is the value of a hex digit, 0xff for anything else.
func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// Hex returns the 64 lower-case hex digits.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// String returns "sha256:" and the 64 lower-case hex digits.
func (d Digest) String() string { return digestPrefix + d.Hex() }
