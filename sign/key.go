package sign

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
)

// hidden is what every way of printing a key shows instead of it.
const hidden = "[key]"

// Key is a shared secret. No way of printing, logging or encoding it shows its bytes, also as part
// of a larger value; only verbs that go vet refuses (%p, %w) would.
type Key []byte

var (
	_ fmt.Formatter  = Key(nil)
	_ slog.LogValuer = Key(nil)
)

// String returns a fixed text, never the key.
func (Key) String() string { return hidden }

// GoString returns a fixed text, never the key.
func (Key) GoString() string { return hidden }

// Format writes a fixed text for every verb, %x and %d included.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue gives slog a fixed text, never the key.
func (Key) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText gives encoders such as JSON a fixed text, never the key. It returns no error.
func (Key) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// public reports whether k is the public default key.
func (k Key) public() bool { return string(k) == DefaultKey }

// KeyFromFile returns the key that a key file's content holds: all of it but one final newline
// ("\n" or "\r\n"), which editors add. An empty key is ErrKey.
func KeyFromFile(content []byte) (Key, error) {
	if cut, ok := bytes.CutSuffix(content, []byte("\n")); ok {
		content = bytes.TrimSuffix(cut, []byte("\r"))
	}
	if len(content) == 0 {
		return nil, fmt.Errorf("key file: it is empty: %w", ErrKey)
	}
	return bytes.Clone(content), nil
}

// KeyFromEnv returns the key in the environment variable name, taken as it is; lookup is
// os.LookupEnv. ok is false when the variable is not set. Set to nothing is ErrKey: the reference
// tool signs with an empty key then, which proves nothing, so it is more likely a mistake than a
// wish.
func KeyFromEnv(name string, lookup func(string) (string, bool)) (key Key, ok bool, err error) {
	value, set := lookup(name)
	switch {
	case !set:
		return nil, false, nil
	case value == "":
		return nil, false, fmt.Errorf("%s: it is set but empty (give it a key, or unset it): %w",
			name, ErrKey)
	}
	return Key(value), true, nil
}
