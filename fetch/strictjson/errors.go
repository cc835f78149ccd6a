package strictjson

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// maxShown bounds the foreign text in an error, in bytes.
const maxShown = 300

// Where is the JSON pointer of the last token, "the top level" for the outermost value.
func (r *Reader) Where() string {
	if pointer := r.dec.StackPointer(); pointer != "" {
		return safetext.Clip(string(pointer), maxShown)
	}
	return "the top level"
}

// Bad returns an error of the document that wraps Invalid.
func (r *Reader) Bad(format string, args ...any) error {
	return r.Error(r.doc.Invalid, format, args...)
}

// Error returns an error of the document that wraps another kind.
func (r *Reader) Error(kind error, format string, args ...any) error {
	return fmt.Errorf("%s%s: %w", r.prefix(), fmt.Sprintf(format, args...), kind)
}

// Wrap returns err as an error of the document.
func (r *Reader) Wrap(err error) error { return fmt.Errorf("%s%w", r.prefix(), err) }

func (r *Reader) prefix() string {
	if r.doc.Subject == "" {
		return ""
	}
	return r.doc.Subject + ": "
}

// fail turns an error of the decoder into one of the document, unless the source has failed.
func (r *Reader) fail(err error) error {
	switch {
	case r.src.err != nil:
		return r.Wrap(r.src.err)
	case err == io.EOF:
		return r.Bad("bad JSON: it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		at := r.dec.InputOffset()
		return r.Bad("bad JSON: offset %d: it ends in the middle of the JSON value", at)
	}
	text := strings.TrimPrefix(err.Error(), "jsontext: ")
	return r.Bad("bad JSON: %s", safetext.Clip(text, maxShown))
}
