package daemon

import (
	"log/slog"
	"strings"
	"sync"
)

// levelOff is above every level that is used.
const levelOff = slog.Level(100)

// lines is a bounded list of log lines, for the status of a mount; a text handler writes them.
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
