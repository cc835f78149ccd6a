package fetch

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// maxToken is the longest string, number or gap in a manifest or layout index, in bytes. Names, digests and paths are
// far shorter; the limit keeps one endless string from being collected in memory.
const maxToken = 1 << 20

// jsonReader reads hostile JSON as a stream. Names are matched by case, a duplicate name or invalid UTF-8 is an error,
// and so is nesting deeper than jsontext allows (10,000).
type jsonReader struct {
	dec *jsontext.Decoder
	src tokenGuard
	buf []byte // the last string, unquoted
}

// tokenGuard feeds the decoder and remembers why the source ended.
type tokenGuard struct {
	r    io.Reader
	dec  *jsontext.Decoder
	fed  int64
	fail error // of r, not io.EOF
}

func (g *tokenGuard) Read(p []byte) (int, error) {
	if g.fed-g.dec.InputOffset() > maxToken {
		g.fail = fmt.Errorf("a value longer than %d bytes: %w", maxToken, pfimg.ErrIntegrity)
		return 0, g.fail
	}
	n, err := g.r.Read(p)
	g.fed += int64(n)
	if err != nil && err != io.EOF {
		g.fail = err
	}
	return n, err
}

func newJSONReader(r io.Reader) *jsonReader {
	j := &jsonReader{src: tokenGuard{r: r}}
	j.dec = jsontext.NewDecoder(&j.src)
	j.src.dec = j.dec
	return j
}

// document reads one object and makes sure that nothing follows it.
func (j *jsonReader) document(field func(name string) error) error {
	if err := j.object(field); err != nil {
		return j.explain(err)
	}
	switch _, err := j.dec.ReadToken(); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("something follows the JSON document: %w", pfimg.ErrIntegrity)
	default:
		return j.explain(err)
	}
}

// explain tells a failing source from bad JSON.
func (j *jsonReader) explain(err error) error {
	if j.src.fail != nil {
		return j.src.fail
	}
	if errors.Is(err, pfimg.ErrIntegrity) || errors.Is(err, pfimg.ErrUnsupported) {
		return err
	}
	return fmt.Errorf("bad JSON: %s: %w", clip(err.Error(), 200), pfimg.ErrIntegrity)
}

// object reads an object; field is called after each name and must read the value.
func (j *jsonReader) object(field func(name string) error) error {
	if err := j.begin('{', "an object"); err != nil {
		return err
	}
	for j.dec.PeekKind() == '"' {
		name, err := j.text()
		if err != nil {
			return err
		}
		if err := field(name); err != nil {
			return err
		}
	}
	_, err := j.dec.ReadToken()
	return err
}

// array reads an array; element must read one value. null counts as an empty array, as Go programs write it.
func (j *jsonReader) array(element func() error) error {
	if j.dec.PeekKind() == 'n' {
		return j.dec.SkipValue()
	}
	if err := j.begin('[', "an array"); err != nil {
		return err
	}
	for {
		switch j.dec.PeekKind() {
		case ']', jsontext.KindInvalid:
			_, err := j.dec.ReadToken()
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
}

func (j *jsonReader) begin(kind jsontext.Kind, what string) error {
	tok, err := j.dec.ReadToken()
	if err != nil {
		return err
	}
	if tok.Kind() != kind {
		return fmt.Errorf("%s is %s, not %s: %w", j.where(), tok.Kind(), what, pfimg.ErrIntegrity)
	}
	return nil
}

// text reads a string.
func (j *jsonReader) text() (string, error) {
	v, err := j.dec.ReadValue()
	if err != nil {
		return "", err
	}
	if v.Kind() != '"' {
		return "", fmt.Errorf("%s is not a string: %w", j.where(), pfimg.ErrIntegrity)
	}
	j.buf, err = jsontext.AppendUnquote(j.buf[:0], v)
	return string(j.buf), err
}

// integer reads a number without fraction or exponent that fits an int64.
func (j *jsonReader) integer() (int64, error) {
	v, err := j.dec.ReadValue()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is %s, not a whole number: %w", j.where(), clip(string(v), 40), pfimg.ErrIntegrity)
	}
	return n, nil
}

// skip passes over a value of any kind.
func (j *jsonReader) skip() error { return j.dec.SkipValue() }

func (j *jsonReader) where() string { return clip(string(j.dec.StackPointer()), 120) }
