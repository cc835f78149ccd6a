package sign

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzVerify gives hostile signatures to a policy. Whatever verifies must carry the very MAC of the manifest.
func FuzzVerify(f *testing.F) {
	for tag := range fixtures {
		manifest, sig := fixture(f, tag)
		f.Add(manifest, sig)
	}
	f.Add([]byte("m"), sigJSON("algorithm", `"cosign-key"`))
	f.Add([]byte("m"), []byte(`{"bundle":{"a":[1,2,{}]},"algorithm":"\u0068mac-sha256"}`))
	f.Fuzz(func(t *testing.T, manifest, sig []byte) {
		keys := []Key{Key("bike-team-key"), Key(DefaultKey)}
		v, err := Policy{Keys: keys}.Verify(manifest, sig)
		if err != nil {
			if !errors.Is(err, ErrSignature) && !errors.Is(err, ErrAlgorithm) {
				t.Fatalf("error of no known kind: %v", err)
			}
			if v.Bytes() != nil {
				t.Fatal("bytes came with the error")
			}
			return
		}
		if !bytes.Equal(v.Bytes(), manifest) || !bytes.Equal(v.Signature(), sig) {
			t.Fatal("verified bytes are not those that were given")
		}
		fields, err := readFields(sig)
		if err != nil {
			t.Fatalf("verified, but it does not parse: %v", err)
		}
		got, err := hash(fields, "signature")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, mac(manifest, keys[0])) && !bytes.Equal(got, mac(manifest, keys[1])) {
			t.Fatal("verified, but no key made this signature")
		}
	})
}
