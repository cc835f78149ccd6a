package artifact

import (
	"io"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/strictjson"
)

// ReadObject reads a document that is an object; field is called after each name and must read the
// value. Broken JSON is pfimg.ErrIntegrity; errors of r come through as they are.
func ReadObject(r io.Reader, field func(j *strictjson.Reader, name []byte) error) error {
	doc := strictjson.Document{From: r, Invalid: pfimg.ErrIntegrity}
	_, err := doc.Read(func(j *strictjson.Reader) error {
		return j.Object(func(name []byte) error { return field(j, name) })
	})
	return err
}

// ReadList reads an array; element must read one value. null counts as an empty array, as Go
// programs write it.
func ReadList(j *strictjson.Reader, element func(*strictjson.Reader) error) error {
	if null, err := j.Null(); null || err != nil {
		return err
	}
	return j.Array(func() error { return element(j) })
}

// ReadString reads a string.
func ReadString(j *strictjson.Reader) (string, error) {
	text, err := j.Text()
	return string(text), err
}
