package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// levelOff is above every level that is used.
const levelOff = slog.Level(100)

// maxMessage is the longest message that is shown whole, in bytes.
const maxMessage = 16 << 10

// console writes warnings and errors for the person who typed the command:
// one line each, in the form of the command's own errors.
type console struct {
	level slog.Leveler
	attrs []slog.Attr

	mu *sync.Mutex // guards w
	w  io.Writer
}

func newConsole(w io.Writer, level slog.Leveler) *console {
	return &console{level: level, mu: new(sync.Mutex), w: w}
}

func (h *console) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *console) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "pfmount: %s: %s", levelWord(r.Level), safetext.Clip(r.Message, maxMessage))
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

func (h *console) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &c
}

func (h *console) WithGroup(string) slog.Handler { return h }

// consoleLogger is the logger of commands that run and end.
func consoleLogger(verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(newConsole(os.Stderr, level))
}

// lines is a bounded list of log lines, for `pfmount status`; a text handler writes them.
type lines struct {
	mu   sync.Mutex // guards all, errs
	all  []string
	errs []string
}

// keptLines and keptErrors bound what status and /log show.
const (
	keptLines  = 200
	keptErrors = 16
)

func (l *lines) Write(p []byte) (int, error) {
	line := strings.TrimSuffix(string(p), "\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = keep(append(l.all, line), keptLines)
	if strings.Contains(line, "level=ERROR") {
		l.errs = keep(append(l.errs, line), keptErrors)
	}
	return len(p), nil
}

func keep(s []string, n int) []string {
	if len(s) > n {
		return append(s[:0], s[len(s)-n:]...)
	}
	return s
}

func (l *lines) snapshot() (all, errs []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.all...), append([]string{}, l.errs...)
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
