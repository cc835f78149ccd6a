package daemon

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestTakeNotifier: which process the manager's variables address, and that child processes do not
// inherit them.
func TestTakeNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	me, parent := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getppid())
	for _, tt := range []struct {
		name     string
		started  int
		env      map[string]string
		want     bool
		watchdog time.Duration
	}{
		{"no manager", os.Getpid(), nil, false, 0},
		{"the service", os.Getpid(), map[string]string{"NOTIFY_SOCKET": path,
			"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": me}, true, 2 * time.Second},
		{"no watchdog", os.Getpid(), map[string]string{"NOTIFY_SOCKET": path}, true, 0},
		{"somebody else's watchdog", os.Getpid(),
			map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000",
				"WATCHDOG_PID": "1"}, true, 0},
		{"a watchdog that is no number", os.Getpid(),
			map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "soon"}, true, 0},
		{"the service went to the background", os.Getppid(),
			map[string]string{"NOTIFY_SOCKET": path, "SYSTEMD_EXEC_PID": parent,
				"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": parent}, true, 3 * time.Second},
		{"the background of some service's script", os.Getppid(),
			map[string]string{"NOTIFY_SOCKET": path, "SYSTEMD_EXEC_PID": "1"}, false, 0},
		{"the background of an unknown manager's", os.Getppid(),
			map[string]string{"NOTIFY_SOCKET": path}, false, 0},
		{"a dead manager", os.Getpid(), map[string]string{"NOTIFY_SOCKET": path + "-none"}, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range append([]string{"SYSTEMD_EXEC_PID"}, notifyVars...) {
				t.Setenv(name, "")
				os.Unsetenv(name)
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			n := takeNotifier(tt.started, slog.New(slog.DiscardHandler))
			if (n != nil) != tt.want {
				t.Fatalf("got %v, want one: %v", n, tt.want)
			}
			if n != nil {
				defer n.socket.Close()
				if n.watchdog != tt.watchdog || n.moved != (tt.started != os.Getpid()) {
					t.Errorf("got %+v, want watchdog %v", n, tt.watchdog)
				}
			}
			for _, name := range notifyVars {
				if v, ok := os.LookupEnv(name); ok {
					t.Errorf("%s=%q is left for children", name, v)
				}
			}
		})
	}
}

func TestStatusLine(t *testing.T) {
	s := State{Image: "reg/x:1"}
	s.FetchedBytes, s.TotalBytes, s.CacheHits, s.CacheMisses = 1<<20, 4<<20, 5, 2
	for _, tt := range []struct {
		change func(*State)
		want   string
	}{
		{func(*State) {}, "reg/x:1: fetched 1.0 MiB of 4.0 MiB; cache: 5 hits, 2 misses"},
		{func(s *State) { s.LastErrors = make([]string, 3) },
			"reg/x:1: fetched 1.0 MiB of 4.0 MiB; cache: 5 hits, 2 misses; errors: 3"},
		{func(s *State) { s.LastErrors = make([]string, keptErrors) },
			"reg/x:1: fetched 1.0 MiB of 4.0 MiB; cache: 5 hits, 2 misses; errors: 16 or more"},
		{func(s *State) { s.Offline = true },
			"reg/x:1: fetched 1.0 MiB of 4.0 MiB; cache: 5 hits, 2 misses; offline"},
		{func(s *State) { s.TotalBytes = 0 }, "reg/x:1: fetched 1.0 MiB; cache: 5 hits, 2 misses"},
		{func(s *State) { s.Image = "reg/x\nMAINPID=1" },
			`"reg/x\nMAINPID=1": fetched 1.0 MiB of 4.0 MiB; cache: 5 hits, 2 misses`},
	} {
		s := s
		tt.change(&s)
		if got := statusLine(s); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
