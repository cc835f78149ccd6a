package sign

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
)

// fixtures are manifests and signatures that the reference tool 1.0.15 wrote, and the keys it wrote
// them with.
var fixtures = map[string]Key{
	"basic": Key(DefaultKey), "fork-a": Key(DefaultKey), "fork-b": Key(DefaultKey), "many": Key(DefaultKey),
	"merged": Key(DefaultKey), "minimal": Key(DefaultKey), "nothing": Key(DefaultKey),
	"pages": Key(DefaultKey),
	"keyed": Key("bike-team-key"),
}

func fixture(t testing.TB, tag string) (manifest, sig []byte) {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join("testdata", tag, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err = os.ReadFile(filepath.Join("testdata", tag, "manifest.json.sig"))
	if err != nil {
		t.Fatal(err)
	}
	return manifest, sig
}

func TestSignWritesWhatTheReferenceWrites(t *testing.T) {
	for tag, key := range fixtures {
		manifest, want := fixture(t, tag)
		if got := Sign(manifest, key); !bytes.Equal(got, want) {
			t.Errorf("%s: got %s, want %s", tag, got, want)
		}
	}
}

func TestSignWithoutKeyUsesThePublicOne(t *testing.T) {
	manifest, want := fixture(t, "basic")
	if got := Sign(manifest, nil); !bytes.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerifyAcceptsFixtures(t *testing.T) {
	for tag, key := range fixtures {
		manifest, sig := fixture(t, tag)
		p, want := Policy{}, SignerDefault
		if !key.public() {
			p, want = Policy{Keys: []Key{Key("another"), key}, Require: true}, SignerGiven
		}
		v, err := p.Verify(manifest, sig)
		if err != nil {
			t.Errorf("%s: %v", tag, err)
			continue
		}
		if v.Signer() != want || v.Why() != "" {
			t.Errorf("%s: signer %q, why %q, want %q and nothing", tag, v.Signer(), v.Why(), want)
		}
		if !bytes.Equal(v.Bytes(), manifest) || !bytes.Equal(v.Signature(), sig) {
			t.Errorf("%s: the bytes are not those that were given", tag)
		}
		if id := sha256.Sum256(manifest); v.ID() != id {
			t.Errorf("%s: id %x, want %x", tag, v.ID(), id)
		}
	}
}

func TestVerifiedKeepsWhatWasChecked(t *testing.T) {
	manifest, sig := fixture(t, "basic")
	want, wantSig := bytes.Clone(manifest), bytes.Clone(sig)
	v, err := Policy{}.Verify(manifest, sig)
	if err != nil {
		t.Fatal(err)
	}
	manifest[0], sig[0] = 'x', 'x'
	if !bytes.Equal(v.Bytes(), want) || !bytes.Equal(v.Signature(), wantSig) {
		t.Error("a change of the caller's slices reached the verified bytes")
	}
}

func TestUnverified(t *testing.T) {
	v := Unverified([]byte("m"), nil, "a store has no signature")
	if v.Signer() != SignerNone || v.Why() != "a store has no signature" || v.Signature() != nil ||
		string(v.Bytes()) != "m" {
		t.Errorf("got %q %q %q %q", v.Signer(), v.Why(), v.Signature(), v.Bytes())
	}
	if got := (Verified{}).Signer(); got != SignerNone {
		t.Errorf("the zero value has signer %q, want %q", got, SignerNone)
	}
}

// sigJSON makes the signature of "m" with one field replaced; an empty value leaves the field out.
func sigJSON(field, value string) []byte {
	id := sha256.Sum256([]byte("m"))
	fields := []struct{ name, value string }{
		{"algorithm", `"` + HMACSHA256 + `"`},
		{"manifest_digest", `"` + hex.EncodeToString(id[:]) + `"`},
		{"signature", `"` + hex.EncodeToString(mac([]byte("m"), Key(DefaultKey))) + `"`},
	}
	var out []byte
	for _, f := range fields {
		if f.name == field {
			f.value = value
		}
		if f.value == "" {
			continue
		}
		out = append(out, ',', '"')
		out = append(out, f.name+`":`+f.value...)
	}
	out[0] = '{'
	return append(out, '}')
}
