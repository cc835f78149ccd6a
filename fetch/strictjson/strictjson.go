// Package strictjson reads hostile JSON as a bounded stream. Names match by case; a name that an
// object has twice, invalid UTF-8, nesting, names and tokens beyond the limits, and bytes after the
// value are errors. One token is held in memory, never a value.
//
// It does not know what a document means, and neither waits nor retries: that is up to the reader
// that the bytes come from.
package strictjson

import (
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of the JSON itself. What the reference tool writes nests 4 deep and has no string over
// 25 KB; names, digests and paths of an OCI manifest are shorter still.
const (
	MaxNesting = 32
	MaxToken   = 1 << 20 // bytes of one string, number or run of white space
	MaxNames   = 1 << 20 // bytes of the names of one object, all of which the decoder keeps
)

// Document is one JSON value and nothing else.
type Document struct {
	Subject string    // begins every error; may be empty
	From    io.Reader // its bytes; its errors are wrapped
	Invalid error     // is wrapped by every error that is not of From
}

// Read reads the document by the function, which must read one value, and returns how many bytes
// the document has.
func (d Document) Read(value func(*Reader) error) (int64, error) {
	src := &source{from: d.From, invalid: d.Invalid, buf: make([]byte, chunkSize)}
	r := &Reader{doc: d, src: src, dec: jsontext.NewDecoder(src)}
	src.done = r.dec.InputOffset
	if err := value(r); err != nil {
		return 0, err
	}
	switch _, err := r.dec.ReadToken(); {
	case err == nil:
		return 0, r.Bad("bytes after the JSON value")
	case err != io.EOF || src.err != nil:
		return 0, r.fail(err)
	}
	return src.read, nil
}

// Reader reads the value of a document, from the outermost inwards.
type Reader struct {
	doc   Document
	dec   *jsontext.Decoder
	src   *source
	names [MaxNesting + 1]int // bytes of names in the open object of each depth
	buf   []byte              // the last string, unquoted
}

// Object reads an object; each is called after every name and must read its value.
func (r *Reader) Object(each func(name []byte) error) error {
	if err := r.openValue('{', "an object"); err != nil {
		return err
	}
	for r.dec.PeekKind() == '"' {
		name, err := r.readText()
		if err != nil {
			return err
		}
		if err := r.named(len(name)); err != nil {
			return err
		}
		if err := each(name); err != nil {
			return err
		}
	}
	return r.token()
}

// Array reads an array; each is called before every element and must read it.
func (r *Reader) Array(each func() error) error {
	if err := r.openValue('[', "an array"); err != nil {
		return err
	}
	for {
		switch r.dec.PeekKind() {
		case ']', 0:
			return r.token()
		}
		if err := each(); err != nil {
			return err
		}
	}
}

// openValue reads the first token of an object or array.
func (r *Reader) openValue(kind jsontext.Kind, want string) error {
	if err := r.want(kind, want); err != nil {
		return err
	}
	return r.token()
}

// token reads a token of any kind and keeps the bounds of nesting.
func (r *Reader) token() error {
	token, err := r.dec.ReadToken()
	if err != nil {
		return r.fail(err)
	}
	if kind := token.Kind(); kind == '{' || kind == '[' {
		depth := r.dec.StackDepth()
		if depth > MaxNesting {
			return r.Bad("nested more than %d deep", MaxNesting)
		}
		r.names[depth] = 0
	}
	return nil
}

// named counts a name of the open object.
func (r *Reader) named(n int) error {
	depth := r.dec.StackDepth()
	if r.names[depth] += n; r.names[depth] > MaxNames {
		return r.Bad("an object with more than %d bytes of names", MaxNames)
	}
	return nil
}

// Skip reads a value of any form and forgets it.
func (r *Reader) Skip() error {
	for depth := r.dec.StackDepth(); ; {
		kind, length := r.dec.StackIndex(r.dec.StackDepth())
		if kind == '{' && length%2 == 0 && r.dec.PeekKind() == '"' {
			name, err := r.dec.ReadValue()
			if err != nil {
				return r.fail(err)
			}
			if err := r.named(len(name)); err != nil {
				return err
			}
			continue
		}
		if err := r.token(); err != nil {
			return err
		}
		if r.dec.StackDepth() == depth {
			return nil
		}
	}
}

// want checks the kind of the next value. Broken JSON is left to the read that follows.
func (r *Reader) want(kind jsontext.Kind, name string) error {
	if got := r.dec.PeekKind(); got != kind && got != 0 {
		if err := r.token(); err != nil { // a missing comma and the like show here
			return err
		}
		return r.Bad("%s: want %s", r.Where(), name)
	}
	return nil
}
