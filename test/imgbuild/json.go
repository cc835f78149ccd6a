package imgbuild

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
)

// quote is s as a JSON string in the reference's escaping (no HTML escapes).
func quote(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// appendJSON writes the entry in the reference's field order: path, mode, size, kind, blob, link_target.
func (e *Entry) appendJSON(b []byte) []byte {
	if e.Raw != "" {
		return append(b, e.Raw...)
	}
	b = append(append(b, `{"path":`...), quote(e.Path)...)
	if e.Mode != "" {
		b = append(append(b, `,"mode":`...), quote(e.Mode)...)
	}
	size := int64(0)
	if e.Content != nil {
		size = e.Content.Size()
	}
	if e.Size != nil {
		size = *e.Size
	}
	b = strconv.AppendInt(append(b, `,"size":`...), size, 10)
	if e.Kind != "" {
		b = append(append(b, `,"kind":`...), quote(e.Kind)...)
	}
	if e.Blob != "" {
		b = append(append(b, `,"blob":`...), quote(e.Blob)...)
	}
	if e.Kind == "symlink" {
		b = append(append(b, `,"link_target":`...), quote(e.Target)...)
	}
	return append(b, '}')
}

// manifest is the pf manifest in the reference's form: compact, in its field order, parents always there.
func (b *builder) manifest() []byte {
	created := b.spec.Created
	if created == "" {
		created = DefaultCreated
	}
	d := func(field string) string { return b.tops[field].Logical }
	parents := []byte("[]")
	if len(b.spec.Parents) > 0 {
		parents, _ = json.Marshal(b.spec.Parents) // strings always encode
	}
	return fmt.Appendf(nil, `{"schema_version":1,"media_type":%q,`+
		`"agent":{"kind":"claude-code","version":"1.0.15","fingerprint":"harness"},`+
		`"model":{"base":%q,"diff":%q},"cache":{"layout":"paged-batchinvariant-v1","manifest":%q},`+
		`"world":{"fs":%q,"env":%q,"procs":%q},"effects":{"ledger":%q},"trace":{"messages":%q},`+
		`"created_at":%s,"parents":%s}`, ConfigType,
		d("model.base"), d("model.diff"), d("cache.manifest"), d("world.fs"), d("world.env"),
		d("world.procs"), d("effects.ledger"), d("trace.messages"), quote(created), parents)
}

// Sign is the signature JSON over manifest, as the reference writes it; an empty key is DefaultKey.
func Sign(manifest []byte, key string) []byte {
	if key == "" {
		key = DefaultKey
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(manifest)
	sum := sha256.Sum256(manifest)
	return fmt.Appendf(nil, `{"algorithm":"hmac-sha256","manifest_digest":"%x","signature":"%s"}`,
		sum, hex.EncodeToString(mac.Sum(nil)))
}
