package pfimg

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pfmount/pfmount/sign"
)

func parseText(text string) (*Manifest, error) {
	return Parse(sign.Unverified([]byte(text), nil, "test"))
}

func TestParseFixtures(t *testing.T) {
	ids := map[string]string{
		"basic":   "2aed312d3deeabdfd5640223dcfb15e59c65279d4bbc328996a776c90ef005b4",
		"fork-a":  "add3df98b00cde2a998e0d5f90871b21ead41de77d59a98aca10f5ee62cbb444",
		"fork-b":  "f09b0a83dd256027d473bffff928553fe9372461e3cfd5dc53fd2899eb7f4942",
		"many":    "9de532b333b46bb7e019ec7bd2e212a99a54c17e65d7d23a9477ce80b5a605b1",
		"merged":  "d4d346d940cc3b187cbe199c048d6bdb8d69f4776a9ef92c489685e2b809ea05",
		"minimal": "42a5aded9060d459a290a989c19e46a8ba37a77663c3cfdf43da7c52341cb7dd",
		"nothing": "6bda6fabe83561be89d16f22b5006fb93d0de4206308d313592fc1d4b50d7b6f",
		"pages":   "16f7f7845ae284e3d0c73040710687dc78c5e1e950b6272d8454ed1f4599711e",
	}
	parents := map[string]int{"fork-a": 1, "fork-b": 1, "merged": 2, "pages": 1}
	for _, tag := range tags {
		m, _ := loadFixture(t, tag)
		var want struct {
			Agent struct{ Kind, Version, Fingerprint string }
			World struct{ FS, Env, Procs string }
			Made  time.Time `json:"created_at"`
		}
		if err := json.Unmarshal(m.Raw, &want); err != nil {
			t.Fatal(err)
		}
		if m.ID.Hex() != ids[tag] || m.Signer != sign.SignerDefault || len(m.Signature) == 0 {
			t.Errorf("%s: id %s, signer %s, signature %q", tag, m.ID, m.Signer, m.Signature)
		}
		if m.Agent != Agent(want.Agent) || !m.Created.Equal(want.Made) || len(m.Parents) != parents[tag] {
			t.Errorf("%s: agent %v, created %v, parents %v", tag, m.Agent, m.Created, m.Parents)
		}
		if m.World.FS.String() != want.World.FS || m.World.Env.String() != want.World.Env ||
			m.World.Procs.String() != want.World.Procs {
			t.Errorf("%s: world %v, want %v", tag, m.World, want.World)
		}
	}
}

// minimalManifest is a manifest in which no two digests are equal.
func minimalManifest() string {
	m := testManifest("tree", "table")
	return `{"schema_version":1,"media_type":"application/vnd.processfork.image.v1+json",` +
		`"agent":{"kind":"k","version":"v","fingerprint":"f"},"model":{"base":"` +
		m.Model.Base.String() + `","diff":"` + m.Model.Diff.String() +
		`"},"cache":{"layout":"l","manifest":"` + m.Cache.Manifest.String() + `"},"world":{"fs":"` +
		m.World.FS.String() +
		`","env":"` + m.World.Env.String() + `","procs":"` + m.World.Procs.String() +
		`"},"effects":{"ledger":"` + m.Effects.Ledger.String() +
		`"},"trace":{"messages":"` + m.Trace.Messages.String() +
		`"},"created_at":"2026-05-05T14:11:00.123456789Z","parents":["` + hash("p").String() + `"]}`
}

func TestParseTopLevel(t *testing.T) {
	m, err := parseText(minimalManifest())
	if err != nil {
		t.Fatal(err)
	}
	want := [8]TopBlob{
		{"model/base", hash("base")}, {"model/diff.json", hash("diff")},
		{"cache/manifest.json", hash("table")}, {"world/fs", hash("tree")},
		{"world/env.json", hash("env")}, {"world/procs.json", hash("procs")},
		{"effects/ledger.jsonl", hash("ledger")}, {"trace/messages.jsonl", hash("messages")},
	}
	if got := m.TopLevel(); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(m.Parents) != 1 || m.Parents[0] != hash("p") || m.Cache.Layout != "l" {
		t.Errorf("parents %v, layout %q", m.Parents, m.Cache.Layout)
	}
	if want := time.Date(2026, 5, 5, 14, 11, 0, 123456789, time.UTC); !m.Created.Equal(want) {
		t.Errorf("created %v, want %v", m.Created, want)
	}
	if m.Signer != sign.SignerNone || m.Signature != nil || m.ID != sha256.Sum256(m.Raw) {
		t.Errorf("signer %q, signature %q, id %s", m.Signer, m.Signature, m.ID)
	}
}

func TestParseManifest(t *testing.T) {
	hexOf := func(s string) string { return hash(s).Hex() }
	tests := []struct {
		name, old, new string
		wantErr        error
		says           string
	}{
		{"camelCase", `"schema_version":1,"media_type"`, `"schemaVersion":1,"mediaType"`, nil, ""},
		{"camelCase time", "created_at", "createdAt", nil, ""},
		{"no parents", `,"parents":["` + hash("p").String() + `"]`, "", nil, ""},
		{"null parents", `["` + hash("p").String() + `"]`, "null", nil, ""},
		{"unknown fields", `"agent":{`, `"x":[{"y":[1]}],"agent":{"x":null,`, nil, ""},
		{"upper-case digest", hexOf("env"), strings.ToUpper(hexOf("env")), nil, ""},
		{"white space", `{"schema_version"`, " {\n\t\"schema_version\"", nil, ""},
		{"time with an offset", "00.123456789Z", "00+02:00", nil, ""},
		{"time in lower case", "05T14:11:00.123456789Z", "05t14:11:00z", nil, ""},
		{"time before 1970", "2026", "1901", nil, ""},
		{"both spellings of schema", `{"schema_version":1`, `{"schema_version":1,"schemaVersion":1`,
			ErrIntegrity, "both spellings"},
		{"both spellings of media type", `{`,
			`{"mediaType":"application/vnd.processfork.image.v1+json",`, ErrIntegrity, "both spellings"},
		{"both spellings of time", `"created_at"`,
			`"createdAt":"2026-05-05T14:11:00Z","created_at"`, ErrIntegrity, "both spellings"},
		{"schema 2", `"schema_version":1`, `"schema_version":2`, ErrUnsupported, "schema_version 2"},
		{"schema 0", `"schema_version":1`, `"schema_version":0`, ErrUnsupported, "schema_version 0"},
		{"schema 1.0", `"schema_version":1`, `"schema_version":1.0`, ErrIntegrity, "1.0"},
		{"schema -1", `"schema_version":1`, `"schema_version":-1`, ErrIntegrity, "-1"},
		{"schema text", `"schema_version":1`, `"schema_version":"1"`, ErrIntegrity, "schema_version"},
		{"schema huge", `"schema_version":1`, `"schema_version":1` + strings.Repeat("0", 5000),
			ErrIntegrity, "schema_version"},
		{"schema missing", `"schema_version":1,`, ``, ErrIntegrity, "schema_version is missing"},
		{"other media type", "vnd.processfork.image", "vnd.oci.image.config", ErrUnsupported,
			"vnd.oci.image.config"},
		{"media type missing", `"media_type":"application/vnd.processfork.image.v1+json",`, ``,
			ErrIntegrity, "media_type is missing"},
		{"agent missing", `"agent":{"kind":"k","version":"v","fingerprint":"f"},`, ``, ErrIntegrity,
			"agent is missing"},
		{"agent.kind missing", `"kind":"k",`, ``, ErrIntegrity, "agent.kind is missing"},
		{"agent.kind null", `"kind":"k"`, `"kind":null`, ErrIntegrity, "/agent/kind"},
		{"agent no object", `{"kind":"k","version":"v","fingerprint":"f"}`, `"k"`, ErrIntegrity, "/agent"},
		{"fingerprint missing", `,"fingerprint":"f"`, ``, ErrIntegrity, "agent.fingerprint is missing"},
		{"diff missing", `,"diff":"sha256:` + hexOf("diff") + `"`, ``, ErrIntegrity, "model.diff is missing"},
		{"layout missing", `"layout":"l",`, ``, ErrIntegrity, "cache.layout is missing"},
		{"fs missing", `"fs":"sha256:` + hexOf("tree") + `",`, ``, ErrIntegrity, "world.fs is missing"},
		{"trace missing", `"trace":`, `"trail":`, ErrIntegrity, "trace is missing"},
		{"ledger missing", `"ledger":`, `"ledgers":`, ErrIntegrity, "effects.ledger is missing"},
		{"created_at missing", `"created_at":`, `"created":`, ErrIntegrity, "created_at is missing"},
		{"created_at bad", "2026-05-05T", "2026-13-05T", ErrIntegrity, "2026-13-05T"},
		{"created_at a number", `"2026-05-05T14:11:00.123456789Z"`, "1777990260", ErrIntegrity, "created_at"},
		{"digest short", hexOf("env"), hexOf("env")[1:], ErrIntegrity, "/world/env"},
		{"digest of another kind", "sha256:" + hexOf("env"), "sha512:" + hexOf("env"), ErrIntegrity,
			"sha512:"},
		{"digest without prefix", "sha256:" + hexOf("env"), hexOf("env"), ErrIntegrity, "/world/env"},
		{"digest no hex", hexOf("env"), "g" + hexOf("env")[1:], ErrIntegrity, "/world/env"},
		{"digest prefix in capitals", "sha256:" + hexOf("env"), "SHA256:" + hexOf("env"),
			ErrIntegrity, "SHA256:"},
		{"parents no digest", `["sha256:`, `["sha1:`, ErrIntegrity, "/parents/0"},
		{"parents no array", `["` + hash("p").String() + `"]`, `"` + hash("p").String() + `"`,
			ErrIntegrity, "/parents"},
		{"duplicate name", `"agent":{`, `"agent":{"kind":"z",`, ErrIntegrity, "duplicate"},
		{"duplicate top name", `"agent":{`, `"model":{},"agent":{`, ErrIntegrity, "duplicate"},
		{"wrong case", `"agent":{`, `"Agent":{`, ErrIntegrity, "agent is missing"},
		{"wrong case inside", `"base":`, `"Base":`, ErrIntegrity, "model.base is missing"},
		{"invalid UTF-8", `"kind":"k"`, "\"kind\":\"\xff\"", ErrIntegrity, "UTF-8"},
		{"trailing bytes", `"]}`, `"]}{}`, ErrIntegrity, "after"},
		{"trailing garbage", `"]}`, `"]}x`, ErrIntegrity, ""},
		{"cut", `,"parents":["` + hash("p").String() + `"]}`, ``, ErrIntegrity, "middle"},
		{"nested 200,000 deep", `{"schema_version"`,
			`{"x":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) +
				`,"schema_version"`, ErrIntegrity, "deep"},
		{"nested 33 deep", `{"schema_version"`,
			`{"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `,"schema_version"`,
			ErrIntegrity, "deep"},
		{"nested 32 deep", `{"schema_version"`,
			`{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `,"schema_version"`, nil, ""},
		{"too large", `{"schema_version"`, `{"x":"` + strings.Repeat("x", MaxManifest) +
			`","schema_version"`, ErrIntegrity, "limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := minimalManifest()
			if !strings.Contains(text, tt.old) {
				t.Fatalf("%q is not in the manifest", tt.old)
			}
			m, err := parseText(strings.Replace(text, tt.old, tt.new, 1))
			wantError(t, err, tt.wantErr, tt.says)
			if (m == nil) != (err != nil) {
				t.Errorf("manifest %v with error %v", m, err)
			}
		})
	}
}

func TestParseOtherJSON(t *testing.T) {
	tests := []struct {
		text    string
		wantErr error
	}{
		{"", ErrIntegrity},
		{"null", ErrIntegrity},
		{"[]", ErrIntegrity},
		{"<!DOCTYPE html>", ErrIntegrity},
		{"{}", ErrUnsupported},
		{`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}`, ErrUnsupported},
		{`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}`,
			ErrUnsupported},
		{`{"schemaVersion":7,"mediaType":"application/vnd.processfork.image.v1+json","agent":7}`,
			ErrUnsupported},
	}
	for _, tt := range tests {
		_, err := parseText(tt.text)
		if !errors.Is(err, tt.wantErr) {
			t.Errorf("%q: got %v, want %v", tt.text, err, tt.wantErr)
		}
	}
	if _, err := Parse(sign.Verified{}); !errors.Is(err, ErrIntegrity) {
		t.Errorf("the zero Verified: got %v, want %v", err, ErrIntegrity)
	}
}

func TestParseDigest(t *testing.T) {
	want := hash("x")
	for _, text := range []string{want.String(), "sha256:" + strings.ToUpper(want.Hex())} {
		if got, err := ParseDigest(text); err != nil || got != want {
			t.Errorf("%s: got %v %v", text, got, err)
		}
	}
	for _, text := range []string{"", "sha256:", want.Hex(), want.String() + "0",
		want.String()[:70], "sha256:" + strings.Repeat("é", 32), "sha256:" + strings.Repeat("z", 64)} {
		if _, err := ParseDigest(text); !errors.Is(err, ErrIntegrity) {
			t.Errorf("%q: got %v, want %v", text, err, ErrIntegrity)
		}
	}
}
