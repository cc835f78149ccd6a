package artifact

import "io"

// Sink takes a blob's bytes. Reset drops what was written so far: the bytes come again from the
// start. Write and Reset are never called at once, but not always from the goroutine that called
// Blob; they are not called after it returned.
type Sink interface {
	io.Writer
	Reset() error
}

// Discard is a Sink that drops a blob's bytes. Its value is how many there were.
type Discard int64

var _ Sink = (*Discard)(nil)

func (d *Discard) Write(p []byte) (int, error) {
	*d += Discard(len(p))
	return len(p), nil
}

// Reset sets the count to zero.
func (d *Discard) Reset() error {
	*d = 0
	return nil
}

// Memory is a Sink that grows in pieces, so that a long manifest is never held twice while it
// arrives.
type Memory struct{ pieces [][]byte }

const memoryPiece = 1 << 20

var _ Sink = (*Memory)(nil)

func (m *Memory) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		last := len(m.pieces) - 1
		if last < 0 || len(m.pieces[last]) == cap(m.pieces[last]) {
			size := memoryPiece
			if last < 0 {
				size = 16 << 10 // most manifests are short
			}
			m.pieces = append(m.pieces, make([]byte, 0, size))
			last++
		}
		piece := m.pieces[last]
		n := min(len(rest), cap(piece)-len(piece))
		m.pieces[last] = append(piece, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

func (m *Memory) Reset() error {
	m.pieces = nil
	return nil
}

func (m *Memory) Bytes() []byte {
	size := 0
	for _, p := range m.pieces {
		size += len(p)
	}
	all := make([]byte, 0, size)
	for _, p := range m.pieces {
		all = append(all, p...)
	}
	return all
}
