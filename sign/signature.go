package sign

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// signature is manifest.json.sig, decoded.
type signature struct{ digest, mac []byte }

// parse reads a signature's JSON. Names match case-sensitively; a duplicate name, invalid UTF-8, a
// value that is no string and bytes after the object are ErrSignature. "bundle" and unknown names
// are ignored. The algorithm is looked at before the rest, since others may have other fields.
func parse(raw []byte) (signature, error) {
	if len(raw) == 0 {
		return signature{}, fmt.Errorf("signature: the image has none: %w", ErrSignature)
	}
	fields, err := readFields(raw)
	if err != nil {
		return signature{}, fmt.Errorf("signature: %.300q: %w", err.Error(), ErrSignature)
	}
	algorithm, ok := fields["algorithm"]
	switch {
	case !ok:
		return signature{}, fmt.Errorf(`signature: "algorithm" is missing: %w`, ErrSignature)
	case algorithm != HMACSHA256:
		return signature{}, fmt.Errorf("signature: %.100q: %w", algorithm, ErrAlgorithm)
	}
	var s signature
	if s.digest, err = hash(fields, "manifest_digest"); err != nil {
		return signature{}, err
	}
	if s.mac, err = hash(fields, "signature"); err != nil {
		return signature{}, err
	}
	return s, nil
}

// readFields returns the known fields of the object that raw is, and nothing but that object.
func readFields(raw []byte) (map[string]string, error) {
	fields := make(map[string]string, 3)
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	if kind := dec.PeekKind(); kind != '{' && kind != 0 {
		return nil, errors.New("not a JSON object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		switch name := token.String(); name {
		case "algorithm", "manifest_digest", "signature":
			if fields[name], err = readString(dec, name); err != nil {
				return nil, err
			}
		default:
			if err := dec.SkipValue(); err != nil {
				return nil, err
			}
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err == nil {
		return nil, errors.New("bytes after the JSON object")
	} else if err != io.EOF {
		return nil, err
	}
	return fields, nil
}

func readString(dec *jsontext.Decoder, name string) (string, error) {
	if kind := dec.PeekKind(); kind != '"' && kind != 0 {
		return "", fmt.Errorf("%s is not a string", name)
	}
	token, err := dec.ReadToken()
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

// hash decodes a field of 64 hex digits.
func hash(fields map[string]string, name string) ([]byte, error) {
	text, ok := fields[name]
	if !ok {
		return nil, fmt.Errorf("signature: %q is missing: %w", name, ErrSignature)
	}
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) != 32 {
		return nil, fmt.Errorf("signature: %s %.100q is not 64 hex digits: %w", name, text,
			ErrSignature)
	}
	return sum, nil
}
