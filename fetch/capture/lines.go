package capture

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Limits of the files beside the tree, in bytes: a line is held in memory, and so is the whole
// ledger, whose header counts what follows. Real ones have kilobytes.
const (
	maxLine   = 64 << 20
	maxLedger = 256 << 20
)

// object is the JSON object of one line: names and values in their order.
type object []field

type field struct {
	name  string
	value jsontext.Value
}

// text gives a field that is a string.
func (o object) text(name string) (string, bool) {
	for _, f := range o {
		if f.name == name && f.value.Kind() == '"' {
			b, err := jsontext.AppendUnquote(nil, f.value)
			return string(b), err == nil
		}
	}
	return "", false
}

// parseObject reads a line, strictly: no name twice, UTF-8, nothing behind the object.
func parseObject(line []byte) (object, error) {
	d := jsontext.NewDecoder(bytes.NewReader(line))
	tok, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if tok.Kind() != '{' {
		return nil, errors.New("no JSON object")
	}
	var o object
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		f := field{name: name.String()}
		v, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		f.value = v.Clone()
		o = append(o, f)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	return o, nil
}

// eachLine calls f with every line that is not blank, and its number from 1.
func eachLine(r io.Reader, f func(n int, line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	n := 0
	for s.Scan() {
		n++
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 {
			continue
		}
		if err := f(n, line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("line %d: more than %d bytes", n+1, maxLine)
	}
	return s.Err()
}

// openBeside opens a file that the user named: a symlink or a pipe is fine here. still says whether
// it changed.
func openBeside(path string) (f *os.File, still func() error, err error) {
	if f, err = os.Open(path); err != nil {
		return nil, nil, source(path, err)
	}
	r := &regular{file: f, path: path}
	if err := unix.Fstat(int(f.Fd()), &r.before); err != nil {
		f.Close()
		return nil, nil, source(path, err)
	}
	if r.before.Mode&unix.S_IFMT != unix.S_IFREG {
		return f, func() error { return nil }, nil
	}
	return f, func() error { return r.unchanged(r.before.Size) }, nil
}

// putTrace stores a trace as it is, once every line is a message: an object with the strings role
// and content.
func putTrace(ctx context.Context, s *store, path string) (pfimg.Digest, error) {
	if path == "" {
		return s.put(nil)
	}
	f, still, err := openBeside(path)
	if err != nil {
		return pfimg.Digest{}, err
	}
	defer f.Close()
	b, err := s.create()
	if err != nil {
		return pfimg.Digest{}, err
	}
	var writing error
	err = eachLine(io.TeeReader(f, sink{b, &writing}), func(_ int, line []byte) error {
		o, err := parseObject(line)
		if err != nil {
			return err
		}
		for _, name := range []string{"role", "content"} {
			if _, ok := o.text(name); !ok {
				return fmt.Errorf("no string %q", name)
			}
		}
		return context.Cause(ctx)
	})
	switch {
	case writing != nil:
		err = writing
	case context.Cause(ctx) != nil:
		err = context.Cause(ctx)
	case err != nil:
		err = source(path, err)
	default:
		err = still()
	}
	if err != nil {
		b.drop()
		return pfimg.Digest{}, err
	}
	return b.keep()
}

// sink keeps an error of writing apart from those of reading.
type sink struct {
	w   io.Writer
	err *error
}

func (s sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	*s.err = err
	return n, err
}

// putLedger stores the session's side effects.
func putLedger(s *store, path string, now time.Time) (pfimg.Digest, error) {
	var data []byte
	if path != "" {
		f, still, err := openBeside(path)
		if err != nil {
			return pfimg.Digest{}, err
		}
		defer f.Close()
		if data, err = io.ReadAll(io.LimitReader(f, maxLedger+1)); err != nil {
			return pfimg.Digest{}, source(path, err)
		}
		if len(data) > maxLedger {
			return pfimg.Digest{}, source(path, fmt.Errorf("more than %d bytes", maxLedger))
		}
		if err := still(); err != nil {
			return pfimg.Digest{}, err
		}
	}
	out, err := ledger(data, now)
	if err != nil {
		return pfimg.Digest{}, source(path, err)
	}
	return s.put(out)
}
