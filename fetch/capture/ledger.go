package capture

import (
	"bytes"
	"fmt"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// The kinds of ledgers that have a header.
const (
	ledgerKind = "effects.ledger.v1"
	mergedKind = "effects.merged.v1"
)

// noDigest is the digest of no bytes: what the reference records for arguments and results
// without a hash.
const noDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// ledger gives the effects.ledger blob. Data that begins with a header is taken as it is. Else each
// line is an entry, which gets the reference's field names, order and defaults; other fields
// follow. No entry has a session_hmac and the header no secret: how the reference makes them is not
// published, and its verify says that it skipped them.
func ledger(data []byte, now time.Time) ([]byte, error) {
	var lines []byte
	entries, headed := 0, false
	err := eachLine(bytes.NewReader(data), func(_ int, line []byte) error {
		o, err := parseObject(line)
		if err != nil {
			return err
		}
		if kind, _ := o.text("kind"); entries == 0 && !headed &&
			(kind == ledgerKind || kind == mergedKind) {
			headed = true
			return nil
		}
		entries++
		if !headed {
			lines, err = appendEntry(lines, o, now)
		}
		return err
	})
	if err != nil || headed {
		return data, err
	}
	return append(
		fmt.Appendf(nil, `{"entries":%d,"kind":%q}`+"\n", entries, ledgerKind),
		lines...), nil
}

// entryFields are the fields of an entry in the reference's order, with what it records when they
// are not there.
var entryFields = []struct {
	name, fallback string
	digest         bool
}{
	{"ts", "", false}, {"tool_id", "", false}, {"args_hash", noDigest, true},
	{"idempotency_key", "", false}, {"result_hash", noDigest, true},
	{"side_effect_class", "irreversible", false},
}

// appendEntry appends an entry and a newline.
func appendEntry(b []byte, o object, now time.Time) ([]byte, error) {
	known := map[string]bool{"session_hmac": true, "timestamp": true}
	for i, f := range entryFields {
		known[f.name] = true
		value, ok := o.text(f.name)
		if !ok && o.has(f.name) {
			return nil, fmt.Errorf("%q is no string", f.name)
		}
		switch {
		case ok:
		case f.name == "tool_id":
			return nil, fmt.Errorf("no string %q", f.name)
		case f.name == "ts":
			if value, ok = o.text("timestamp"); !ok {
				value = timestamp(now)
			}
		default:
			value = f.fallback
		}
		if f.digest {
			if _, err := pfimg.ParseDigest(value); err != nil {
				return nil, fmt.Errorf("%q: %q is not sha256: and 64 hex digits", f.name, value)
			}
		}
		if b = append(b, ','); i == 0 {
			b[len(b)-1] = '{'
		}
		b = appendString(append(appendString(b, f.name), ':'), value)
	}
	for _, f := range o {
		if !known[f.name] {
			b = append(appendString(append(b, ','), f.name), ':')
			b = append(b, f.value...)
		}
	}
	return append(b, "}\n"...), nil
}

// has tells whether a field is there, as anything.
func (o object) has(name string) bool {
	for _, f := range o {
		if f.name == name {
			return true
		}
	}
	return false
}
