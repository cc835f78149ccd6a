package strictjson

import (
	"fmt"
	"io"
)

// chunkSize is how much is read at once: the decoder itself asks for 4 KiB.
const chunkSize = 64 << 10

// source feeds the decoder in large reads, and stops it from buffering an endless token. It keeps
// the error of the reader below apart from what the decoder makes of it.
type source struct {
	from      io.Reader
	invalid   error
	buf, rest []byte
	read      int64        // bytes handed to the decoder
	done      func() int64 // bytes that the decoder has turned into tokens
	err       error        // anything but io.EOF
	eof       bool
}

var _ io.Reader = (*source)(nil)

// Read hands on what is buffered, then reads once.
func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.read-s.done() > MaxToken {
		s.err = fmt.Errorf("bad JSON: offset %d: a token or white space of more than %d bytes: %w",
			s.done(), MaxToken, s.invalid)
		return 0, s.err
	}
	for len(s.rest) == 0 && !s.eof && s.err == nil {
		s.fill()
	}
	if len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		return 0, io.EOF
	}
	n := copy(p, s.rest)
	s.rest, s.read = s.rest[n:], s.read+int64(n)
	return n, nil
}

func (s *source) fill() {
	n, err := s.from.Read(s.buf)
	s.rest = s.buf[:n]
	if s.eof = err == io.EOF; err != nil && !s.eof {
		s.err, s.rest = err, nil
	}
}
