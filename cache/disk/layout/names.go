package layout

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"golang.org/x/sys/unix"
)

const hexDigits = 2 * len(Key{})

// Key is the SHA-256 of a blob's bytes, and its file's name.
type Key = [32]byte

// BlobPath is a blob's name below blobs/.
func BlobPath(key Key) string {
	var b [3 + hexDigits]byte
	hex.Encode(b[:2], key[:1])
	b[2] = '/'
	hex.Encode(b[3:], key[:])
	return string(b[:])
}

// BlobName is the name of a blob's file.
func BlobName(key Key) string { return hex.EncodeToString(key[:]) }

// ParseName is blobName backwards.
func ParseName(name string) (key Key, ok bool) {
	if len(name) != hexDigits {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(name))
	return key, err == nil && BlobName(key) == name
}

// SumsSuffix ends the name of a sidecar.
const SumsSuffix = ".sums"

// ShardName is the directory of the blobs whose keys begin with aa.
func ShardName(aa byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[aa>>4], digits[aa&15]})
}

// IsExact says whether mode and mtime are those that a fill gave the file.
func IsExact(key Key, st *unix.Stat_t) bool {
	if st.Mode&0o7777 != 0o400 {
		return false
	}
	want := Stamp(key)
	if int64(st.Mtim.Sec) != want.Unix() {
		return false
	}
	nsec := int64(st.Mtim.Nsec)
	return nsec == 0 || nsec == int64(want.Nanosecond())
}

// Stamp is the mtime of key's file: a moment between 2000 and 2017 that only this key has, so that
// a later write, a truncation or another blob's file shows. Seconds alone identify it well enough
// where the file system keeps no more; they are even for FAT.
func Stamp(key Key) time.Time {
	sec := 946684800 + 2*int64(binary.BigEndian.Uint32(key[0:4])>>4)
	nsec := 2 + 2*int64(binary.BigEndian.Uint32(key[4:8])%499_999_990)
	return time.Unix(sec, nsec)
}

// RecordName is the name of a record's file.
func RecordName(name string) string {
	return BlobName(sha256.Sum256([]byte(name)))
}
