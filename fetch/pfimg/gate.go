package pfimg

import (
	"context"
	"fmt"
	"io"
)

// chunkSize is how much is read at once: the decoder itself asks for 4 KiB.
const chunkSize = 64 << 10

// gate feeds the decoder in large reads, ends it when ctx does, and stops it from buffering an endless token.
// It keeps the source's own error apart from what the decoder makes of it.
type gate struct {
	ctx       context.Context
	src       io.Reader
	buf, rest []byte
	read      int64        // bytes handed to the decoder
	done      func() int64 // bytes that the decoder has turned into tokens
	err       error        // anything but io.EOF
	eof       bool
}

var _ io.Reader = (*gate)(nil)

// Read hands on what is buffered, then reads once.
func (g *gate) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	if g.read-g.done() > maxToken {
		g.err = fmt.Errorf("offset %d: a token or white space of more than %d bytes: %w", g.done(), maxToken, ErrIntegrity)
		return 0, g.err
	}
	for len(g.rest) == 0 && !g.eof && g.err == nil {
		g.fill()
	}
	if len(g.rest) == 0 {
		if g.err != nil {
			return 0, g.err
		}
		return 0, io.EOF
	}
	n := copy(p, g.rest)
	g.rest, g.read = g.rest[n:], g.read+int64(n)
	return n, nil
}

func (g *gate) fill() {
	if g.err = g.ctx.Err(); g.err != nil {
		return
	}
	n, err := g.src.Read(g.buf)
	g.rest = g.buf[:n]
	if g.eof = err == io.EOF; err != nil && !g.eof {
		g.err, g.rest = fmt.Errorf("read: %w", err), nil
	}
}
