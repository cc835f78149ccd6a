package fusefs

import (
	"errors"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

func TestFailuresDue(t *testing.T) {
	f := newFailures(slog.New(slog.DiscardHandler), "image")
	start := time.Now()
	for _, test := range []struct {
		row   pfimg.Row
		after time.Duration
		want  bool
	}{
		{1, 0, true}, {1, 1, false}, {2, 1, true}, {1, quietTime - 1, false}, {1, quietTime, true},
		{2, quietTime, false}, {1, 2*quietTime - 1, false}, {2, 2 * quietTime, true},
	} {
		if got := f.due(test.row, start.Add(test.after)); got != test.want {
			t.Errorf("row %d after %v: %v, want %v", test.row, test.after, got, test.want)
		}
	}
	for r := range pfimg.Row(3 * maxQuiet) {
		f.due(r, start.Add(time.Hour))
	}
	if len(f.logged) > maxQuiet {
		t.Errorf("%d rows are remembered, want at most %d", len(f.logged), maxQuiet)
	}
}

func TestFailuresReport(t *testing.T) {
	for _, test := range []struct {
		errno syscall.Errno
		err   error
		want  []string
		level string
	}{
		{syscall.EIO, errors.New("registry down"),
			[]string{"read failed", "image=reg/img:tag", "path=world/fs/a", "digest=sha256:01",
				"registry down", "input/output error"}, "ERROR"},
		{syscall.ENOSPC, syscall.ENOSPC, []string{"no space left"}, "ERROR"},
		{syscall.EINTR, errKilled, []string{"killed"}, "DEBUG"},
	} {
		log := new(lines)
		f := newFailures(slog.New(slog.NewTextHandler(log,
			&slog.HandlerOptions{Level: slog.LevelDebug})), "reg/img:tag")
		f.report(failure{op: "read", row: 7,
			path: func(r pfimg.Row) string { return map[pfimg.Row]string{7: "world/fs/a"}[r] }, digest: pfimg.Digest{1}, errno: test.errno, err: test.err})
		if len(log.with(append(test.want, "level="+test.level)...)) != 1 {
			t.Errorf("%v: the log is %q, want one line with %q", test.err, log.with(""), test.want)
		}
	}
}
