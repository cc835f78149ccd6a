package pfimg

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Digest is the SHA-256 of a blob's decoded bytes: its logical digest, the name by which signed
// data knows it. The digest of the stored, compressed bytes is another thing and has another type.
type Digest [32]byte

const digestPrefix = "sha256:"

// nothing is the digest of no bytes.
var nothing = Digest(sha256.Sum256(nil))

// ParseDigest reads "sha256:" and 64 hex digits of either case; anything else is ErrIntegrity.
func ParseDigest(s string) (Digest, error) {
	d, ok := parseDigest(s)
	if !ok {
		return Digest{}, fmt.Errorf("digest %s: want sha256: and 64 hex digits: %w", quote(s),
			ErrIntegrity)
	}
	return d, nil
}

func parseDigest[T ~string | ~[]byte](s T) (d Digest, ok bool) {
	if len(s) != len(digestPrefix)+2*len(d) || string(s[:len(digestPrefix)]) != digestPrefix {
		return d, false
	}
	bad := byte(0)
	for i := range d {
		hi, lo := nibbles[s[len(digestPrefix)+2*i]], nibbles[s[len(digestPrefix)+2*i+1]]
		bad |= hi | lo
		d[i] = hi<<4 | lo
	}
	if bad > 0xf {
		return Digest{}, false
	}
	return d, true
}

// nibbles are the values of nibble: a branch for each digit, which no processor foresees, takes
// several times as long.
var nibbles = func() (t [256]byte) {
	for c := range t {
		t[c] = nibble(byte(c))
	}
	return t
}()

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

// StoredPath returns where an image keeps a blob's stored bytes, and the name of its layer:
// "blobs/sha256/<aa>/<hex>.zst" by the digest of the decoded bytes.
func (d Digest) StoredPath() string {
	name := d.Hex()
	return "blobs/sha256/" + name[:2] + "/" + name + ".zst"
}

// String returns "sha256:" and the 64 lower-case hex digits.
func (d Digest) String() string { return digestPrefix + d.Hex() }
