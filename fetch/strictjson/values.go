package strictjson

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// Null reads a null if there is one. Optional fields may be null: serde writes absent ones so.
func (r *Reader) Null() (bool, error) {
	if r.dec.PeekKind() != 'n' {
		return false, nil
	}
	return true, r.token()
}

// Text reads a string; the bytes are good until the next one.
func (r *Reader) Text() ([]byte, error) {
	if err := r.want('"', "a string"); err != nil {
		return nil, err
	}
	return r.readText()
}

func (r *Reader) readText() ([]byte, error) {
	value, err := r.dec.ReadValue()
	if err != nil {
		return nil, r.fail(err)
	}
	if r.buf, err = jsontext.AppendUnquote(r.buf[:0], value); err != nil {
		return nil, r.fail(err)
	}
	return r.buf, nil
}

// Number reads a whole number from 0 to limit. Signs, fractions and exponents are refused, as the
// reference tool does.
func (r *Reader) Number(limit int64) (int64, error) {
	if err := r.want('0', "a number"); err != nil {
		return 0, err
	}
	value, err := r.dec.ReadValue()
	if err != nil {
		return 0, r.fail(err)
	}
	ok := len(value) <= 19 // so that n cannot overflow
	var n uint64
	for i := 0; ok && i < len(value); i++ {
		c := value[i]
		ok = '0' <= c && c <= '9'
		n = n*10 + uint64(c-'0')
	}
	if !ok || n > uint64(limit) {
		shown := safetext.Clip(string(value), maxShown)
		return 0, r.Bad("%s: %s is no whole number from 0 to %d", r.Where(), shown, limit)
	}
	return int64(n), nil
}

// Integer reads a whole number of 64 bits with a sign.
func (r *Reader) Integer() (int64, error) {
	if err := r.want('0', "a number"); err != nil {
		return 0, err
	}
	value, err := r.dec.ReadValue()
	if err != nil {
		return 0, r.fail(err)
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		shown := safetext.Clip(string(value), maxShown)
		return 0, r.Bad("%s: %s is no whole number of 64 bits", r.Where(), shown)
	}
	return n, nil
}
