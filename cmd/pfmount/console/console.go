// Package console writes log records to a terminal: one line each, in the form of the command's own
// errors, with foreign text escaped.
package console

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// MaxMessage is the longest message that is shown whole, in bytes.
const MaxMessage = 16 << 10

// handler writes records to w.
type handler struct {
	level slog.Leveler
	attrs []slog.Attr

	mu *sync.Mutex // guards w
	w  io.Writer
}

// NewHandler returns a handler that writes records of the level and above to w.
func NewHandler(w io.Writer, level slog.Leveler) slog.Handler {
	return &handler{level: level, mu: new(sync.Mutex), w: w}
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "pfmount: %s: %s", levelWord(r.Level), safetext.Clip(r.Message, MaxMessage))
	sep := " ("
	add := func(a slog.Attr) bool {
		fmt.Fprintf(&b, "%s%s=%s", sep, a.Key, safetext.Plain(a.Value.String()))
		sep = ", "
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	if sep != " (" {
		b.WriteByte(')')
	}
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := h.w.Write(b.Bytes())
	return err
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &c
}

func (h *handler) WithGroup(string) slog.Handler { return h }

// Logger returns the logger of commands that run and end.
func Logger(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(NewHandler(os.Stderr, level))
}

func levelWord(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warning"
	}
	return "note"
}
