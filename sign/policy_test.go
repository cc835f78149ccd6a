package sign

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestVerifyPolicy(t *testing.T) {
	public, keyed := Sign([]byte("m"), nil), Sign([]byte("m"), Key("team"))
	tests := []struct {
		name    string
		policy  Policy
		sig     []byte
		want    Signer
		wantErr error
		says    string
	}{
		{"public key, none given", Policy{}, public, SignerDefault, nil, ""},
		{"public key given as a key", Policy{Keys: []Key{Key(DefaultKey)}}, public, SignerDefault, nil, ""},
		{"own key", Policy{Keys: []Key{Key("team")}}, keyed, SignerGiven, nil, ""},
		{"own key, required", Policy{Keys: []Key{Key("x"), Key("team")}, Require: true}, keyed,
			SignerGiven, nil, ""},
		{"wrong key", Policy{Keys: []Key{Key("x"), Key("y")}}, keyed, "", ErrSignature, "2 tried"},
		{"own key, none given", Policy{}, keyed, "", ErrSignature, "--key-file"},
		{"public key, own given", Policy{Keys: []Key{Key("team")}}, public, "", ErrSignature,
			"public default key"},
		{"public key, own required beside it",
			Policy{Keys: []Key{Key(DefaultKey), Key("team")}, Require: true}, public, "",
			ErrSignature, "public default key"},
		{"required, none given", Policy{Require: true}, keyed, "", ErrKey, "PF_OCI_REG_SIGN_KEY"},
		{"required, the public one given", Policy{Keys: []Key{Key(DefaultKey)}, Require: true},
			public, "", ErrKey, "--key-file"},
		{"empty key", Policy{Keys: []Key{Key("team"), {}}}, keyed, "", ErrKey, "key 2"},
		{"no signature", Policy{}, nil, "", ErrSignature, "none"},
		{"insecure, no signature", Policy{Insecure: true}, nil, SignerNone, nil, ""},
		{"insecure, wrong signature", Policy{Insecure: true}, []byte("nonsense"), SignerNone, nil, ""},
		{"insecure and required", Policy{Insecure: true, Require: true, Keys: []Key{Key("x")}},
			keyed, "", ErrKey, "required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := tt.policy.Verify([]byte("m"), tt.sig)
			wantError(t, err, tt.wantErr, tt.says)
			if tt.wantErr != nil {
				if v.Bytes() != nil {
					t.Error("bytes came with the error")
				}
				return
			}
			if v.Signer() != tt.want || (v.Why() == "") != (tt.want != SignerNone) {
				t.Errorf("signer %q, why %q, want %q", v.Signer(), v.Why(), tt.want)
			}
		})
	}
}

func TestVerifySignatureJSON(t *testing.T) {
	hex64 := strings.Repeat("0", 64)
	tests := []struct {
		name    string
		sig     string
		wantErr error
		says    string
	}{
		{"plain", string(sigJSON("", "")), nil, ""},
		{"white space", " \n" + string(sigJSON("", "")) + "\n", nil, ""},
		{"bundle and unknown fields", `{"bundle":{"a":[1]},"x":null,` + string(sigJSON("", "")[1:]), nil, ""},
		{"escaped name", strings.Replace(string(sigJSON("", "")), "algorithm", `\u0061lgorithm`, 1), nil, ""},
		{"upper-case hex", strings.NewReplacer("a", "A", "b", "B", "c", "C", "d", "D", "e", "E",
			"f", "F").Replace(string(sigJSON("algorithm", ""))), ErrSignature, "missing"},
		{"no JSON", "-----BEGIN PGP SIGNATURE-----", ErrSignature, ""},
		{"array", "[]", ErrSignature, "object"},
		{"null", "null", ErrSignature, "object"},
		{"string", `"x"`, ErrSignature, "object"},
		{"cut", string(sigJSON("", "")[:100]), ErrSignature, "EOF"},
		{"only white space", "  ", ErrSignature, "EOF"},
		{"trailing value", string(sigJSON("", "")) + "{}", ErrSignature, "after"},
		{"trailing garbage", string(sigJSON("", "")) + "x", ErrSignature, ""},
		{"duplicate name", `{"algorithm":"hmac-sha256",` + string(sigJSON("", "")[1:]),
			ErrSignature, "duplicate"},
		{"duplicate by escape", `{"\u0061lgorithm":"hmac-sha256",` + string(sigJSON("", "")[1:]),
			ErrSignature, "duplicate"},
		{"duplicate unknown name", `{"x":1,"x":2,` + string(sigJSON("", "")[1:]), ErrSignature, "duplicate"},
		{"wrong case", `{"Algorithm":"hmac-sha256",` + string(sigJSON("algorithm", "")[1:]),
			ErrSignature, "missing"},
		{"invalid UTF-8", `{"x":"` + "\xff" + `",` + string(sigJSON("", "")[1:]), ErrSignature, "UTF-8"},
		{"lone surrogate", `{"x":"\ud800",` + string(sigJSON("", "")[1:]), ErrSignature, ""},
		{"algorithm missing", string(sigJSON("algorithm", "")), ErrSignature, "algorithm"},
		{"algorithm no string", string(sigJSON("algorithm", "1")), ErrSignature, "algorithm"},
		{"algorithm null", string(sigJSON("algorithm", "null")), ErrSignature, "algorithm"},
		{"algorithm cosign", `{"algorithm":"cosign-key"}`, ErrAlgorithm, `"cosign-key"`},
		{"algorithm none", string(sigJSON("algorithm", `"none"`)), ErrAlgorithm, `"none"`},
		{"algorithm empty", string(sigJSON("algorithm", `""`)), ErrAlgorithm, `""`},
		{"algorithm in capitals", string(sigJSON("algorithm", `"HMAC-SHA256"`)), ErrAlgorithm,
			`"HMAC-SHA256"`},
		{"algorithm escaped in the message", string(sigJSON("algorithm", `"a\u001b[2J"`)),
			ErrAlgorithm, `"a\x1b[2J"`},
		{"manifest_digest missing", string(sigJSON("manifest_digest", "")), ErrSignature, "manifest_digest"},
		{"manifest_digest of other bytes", string(sigJSON("manifest_digest", `"`+hex64+`"`)),
			ErrSignature, hex64},
		{"manifest_digest with a prefix", string(sigJSON("manifest_digest", `"sha256:`+hex64+`"`)),
			ErrSignature, "64 hex"},
		{"signature missing", string(sigJSON("signature", "")), ErrSignature, "signature"},
		{"signature empty", string(sigJSON("signature", `""`)), ErrSignature, "64 hex"},
		{"signature short", string(sigJSON("signature", `"00"`)), ErrSignature, "64 hex"},
		{"signature no hex", string(sigJSON("signature", `"`+strings.Repeat("z", 64)+`"`)),
			ErrSignature, "64 hex"},
		{"signature of other bytes", string(sigJSON("signature", `"`+hex64+`"`)), ErrSignature,
			"public default key"},
		{"nested 200,000 deep", `{"x":` + strings.Repeat("[", 200_000), ErrSignature, "depth"},
		{"too large", `{"x":"` + strings.Repeat("x", maxBytes) + `"}`, ErrSignature, "limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Policy{}.Verify([]byte("m"), []byte(tt.sig))
			wantError(t, err, tt.wantErr, tt.says)
		})
	}
}

func TestVerifyUpperCaseHex(t *testing.T) {
	s := Sign([]byte("m"), nil)
	at := bytes.LastIndex(s, []byte(`:"`))
	s = append(s[:at:at], bytes.ToUpper(s[at:])...)
	if _, err := (Policy{}).Verify([]byte("m"), s); err != nil {
		t.Error(err)
	}
}

func TestVerifyTamperedManifest(t *testing.T) {
	manifest, sig := fixture(t, "keyed")
	for at := range manifest {
		manifest[at] ^= 1
		if _, err := (Policy{Keys: []Key{Key("bike-team-key")}}).Verify(manifest,
			sig); !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d changed: got %v, want %v", at, err, ErrSignature)
		}
		manifest[at] ^= 1
	}
}

func TestVerifyLargeManifest(t *testing.T) {
	for size, want := range map[int]error{maxBytes: nil, maxBytes + 1: ErrSignature} {
		manifest := make([]byte, size)
		_, err := Policy{}.Verify(manifest, Sign(manifest, nil))
		wantError(t, err, want, "")
	}
}

func wantError(t *testing.T, err, want error, says string) {
	t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	if err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("error %q does not say %q", err, says)
	}
}
