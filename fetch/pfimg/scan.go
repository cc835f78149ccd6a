package pfimg

import (
	"context"
	"fmt"
	"io"

	"github.com/pfmount/pfmount/fetch/strictjson"
)

// scan reads a JSON value by the function and wants the end of r after it. It returns how many
// bytes r had. Broken JSON is ErrIntegrity.
func scan(ctx context.Context, subject string, r io.Reader, value func(*strictjson.Reader) error,
) (int64, error) {
	doc := strictjson.Document{Subject: subject, From: contextReader{ctx, r}, Invalid: ErrIntegrity}
	return doc.Read(value)
}

// contextReader ends reading when the context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read: %w", err)
	}
	return n, err
}

// readDigest reads a digest string.
func readDigest(s *strictjson.Reader) (Digest, error) {
	text, err := s.Text()
	if err != nil {
		return Digest{}, err
	}
	d, ok := parseDigest(text)
	if !ok {
		const wants = "%s: %s is no digest (sha256: and 64 hex digits)"
		return Digest{}, s.Bad(wants, s.Where(), quote(text))
	}
	return d, nil
}
