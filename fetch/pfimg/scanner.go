package pfimg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of the JSON itself. What the reference tool writes nests 4 deep and has no string over 25 KB.
const (
	maxNesting = 32
	maxToken   = 1 << 20 // bytes of one string, number or run of white space
	maxNames   = 1 << 20 // bytes of the names of one object, which are all kept to find duplicates
)

// scanner reads one JSON value as a stream. Names match case-sensitively; duplicate names, invalid UTF-8,
// nesting beyond maxNesting and bytes after the value are ErrIntegrity. It holds one token, never a value.
type scanner struct {
	subject string // begins every error
	dec     *jsontext.Decoder
	gate    *gate
	names   [maxNesting + 1]int // bytes of names in the open object of each depth
	text    []byte              // the last string, unquoted
}

// scan reads one value by the function, wants the end of r after it, and returns how many bytes r had.
func scan(ctx context.Context, subject string, r io.Reader, value func(*scanner) error) (int64, error) {
	g := &gate{ctx: ctx, src: r, buf: make([]byte, chunkSize)}
	s := &scanner{subject: subject, gate: g, dec: jsontext.NewDecoder(g)}
	g.done = s.dec.InputOffset
	if err := value(s); err != nil {
		return 0, err
	}
	switch _, err := s.dec.ReadToken(); {
	case err == nil:
		return 0, s.bad("bytes after the JSON value")
	case err != io.EOF || g.err != nil:
		return 0, s.fail(err)
	}
	return g.read, nil
}

// object reads an object; each is called after every name and must read its value.
func (s *scanner) object(each func(name []byte) error) error {
	if err := s.open('{', "an object"); err != nil {
		return err
	}
	for s.dec.PeekKind() == '"' {
		name, err := s.readText()
		if err != nil {
			return err
		}
		if err := s.named(len(name)); err != nil {
			return err
		}
		if err := each(name); err != nil {
			return err
		}
	}
	return s.token()
}

// array reads an array; each is called before every element and must read it.
func (s *scanner) array(each func() error) error {
	if err := s.open('[', "an array"); err != nil {
		return err
	}
	for {
		switch s.dec.PeekKind() {
		case ']', 0:
			return s.token()
		}
		if err := each(); err != nil {
			return err
		}
	}
}

// open reads the first token of an object or array.
func (s *scanner) open(kind jsontext.Kind, want string) error {
	if err := s.want(kind, want); err != nil {
		return err
	}
	return s.token()
}

// token reads a token of any kind and keeps the bounds of nesting.
func (s *scanner) token() error {
	token, err := s.dec.ReadToken()
	if err != nil {
		return s.fail(err)
	}
	if kind := token.Kind(); kind == '{' || kind == '[' {
		depth := s.dec.StackDepth()
		if depth > maxNesting {
			return s.bad("nested more than %d deep", maxNesting)
		}
		s.names[depth] = 0
	}
	return nil
}

// named counts a name of the open object.
func (s *scanner) named(n int) error {
	depth := s.dec.StackDepth()
	if s.names[depth] += n; s.names[depth] > maxNames {
		return s.bad("an object with more than %d bytes of names", maxNames)
	}
	return nil
}

// skip reads a value of any form and forgets it.
func (s *scanner) skip() error {
	for depth := s.dec.StackDepth(); ; {
		kind, length := s.dec.StackIndex(s.dec.StackDepth())
		if kind == '{' && length%2 == 0 && s.dec.PeekKind() == '"' {
			name, err := s.dec.ReadValue()
			if err != nil {
				return s.fail(err)
			}
			if err := s.named(len(name)); err != nil {
				return err
			}
			continue
		}
		if err := s.token(); err != nil {
			return err
		}
		if s.dec.StackDepth() == depth {
			return nil
		}
	}
}

// null reads a null if there is one. Optional fields may be null: serde writes absent ones so.
func (s *scanner) null() (bool, error) {
	if s.dec.PeekKind() != 'n' {
		return false, nil
	}
	return true, s.token()
}

// str reads a string; the bytes are good until the next one.
func (s *scanner) str() ([]byte, error) {
	if err := s.want('"', "a string"); err != nil {
		return nil, err
	}
	return s.readText()
}

func (s *scanner) readText() ([]byte, error) {
	value, err := s.dec.ReadValue()
	if err != nil {
		return nil, s.fail(err)
	}
	if s.text, err = jsontext.AppendUnquote(s.text[:0], value); err != nil {
		return nil, s.fail(err)
	}
	return s.text, nil
}

// digest reads a digest string.
func (s *scanner) digest() (Digest, error) {
	text, err := s.str()
	if err != nil {
		return Digest{}, err
	}
	d, ok := parseDigest(text)
	if !ok {
		return Digest{}, s.bad("%s: %s is no digest (sha256: and 64 hex digits)", s.where(), quote(text))
	}
	return d, nil
}

// number reads a whole number from 0 to limit. Signs, fractions and exponents are refused, as the reference
// tool does.
func (s *scanner) number(limit int64) (int64, error) {
	if err := s.want('0', "a number"); err != nil {
		return 0, err
	}
	value, err := s.dec.ReadValue()
	if err != nil {
		return 0, s.fail(err)
	}
	var n int64
	for _, c := range value {
		if c < '0' || c > '9' || n > limit {
			return 0, s.bad("%s: %s is no whole number from 0 to %d", s.where(), clip(string(value)), limit)
		}
		n = n*10 + int64(c-'0') // limit is at most 2^53, so n cannot overflow
	}
	if n > limit {
		return 0, s.bad("%s: %s is no whole number from 0 to %d", s.where(), clip(string(value)), limit)
	}
	return n, nil
}

// want checks the kind of the next value. Broken JSON is left to the read that follows.
func (s *scanner) want(kind jsontext.Kind, name string) error {
	if got := s.dec.PeekKind(); got != kind && got != 0 {
		if err := s.token(); err != nil { // a missing comma and the like show here
			return err
		}
		return s.bad("%s: want %s", s.where(), name)
	}
	return nil
}

// where is the JSON pointer of the last token, "the top level" for the outermost value.
func (s *scanner) where() string {
	if pointer := s.dec.StackPointer(); pointer != "" {
		return clip(string(pointer))
	}
	return "the top level"
}

// bad makes an integrity error.
func (s *scanner) bad(format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", s.subject, fmt.Sprintf(format, args...), ErrIntegrity)
}

// fail turns an error of the decoder into ours: the source's own error as it is, all else an integrity error.
func (s *scanner) fail(err error) error {
	switch {
	case s.gate.err != nil:
		return fmt.Errorf("%s: %w", s.subject, s.gate.err)
	case err == io.EOF:
		return s.bad("it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return s.bad("offset %d: it ends in the middle of the JSON value", s.dec.InputOffset())
	}
	return s.bad("%s", clip(strings.TrimPrefix(err.Error(), "jsontext: ")))
}
