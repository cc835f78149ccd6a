package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// Under a service manager (sd_notify(3): Type=notify, WatchdogSec=) a mount says when it can be
// read, how it is doing, that it still answers, and that it ends. The messages are datagrams to the
// socket that NOTIFY_SOCKET names.

// statusEvery bounds how often the status line is renewed.
const statusEvery = 3 * time.Second

// notifyVars are the manager's words to its service alone. What the service starts (fusermount3,
// credential helpers) must not see them.
var notifyVars = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}

// notifier speaks to the service manager.
type notifier struct {
	socket   *net.UnixConn
	watchdog time.Duration // after which the manager ends a service that is silent; 0: it does not
	moved    bool          // this is not the process that the manager started
}

// takeNotifier takes the manager's address out of the environment. started is the process that is
// its service if anything here is: this one, or the parent of one that goes to the background.
func takeNotifier(started int, log *slog.Logger) *notifier {
	address := os.Getenv("NOTIFY_SOCKET")
	usec, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range notifyVars {
		os.Unsetenv(name)
	}
	n := &notifier{moved: started != os.Getpid()}
	// A mount that a service's script makes in the background is not that service.
	if address == "" || n.moved && os.Getenv("SYSTEMD_EXEC_PID") != strconv.Itoa(started) {
		return nil
	}
	var err error
	manager := &net.UnixAddr{Name: address, Net: "unixgram"}
	if n.socket, err = net.DialUnix("unixgram", nil, manager); err != nil {
		log.Warn("the service manager cannot be reached", "NOTIFY_SOCKET", address, "error", err)
		return nil
	}
	us, err := strconv.ParseInt(usec, 10, 64)
	if err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(started)) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n
}

// send sends assignments such as READY=1 in one message.
func (n *notifier) send(assignments ...string) error {
	_, err := n.socket.Write([]byte(strings.Join(assignments, "\n")))
	return err
}

// announce tells the manager that the mount can be read and keeps it informed until stop, or until
// ctx ends.
func (n *notifier) announce(
	ctx context.Context, mountpoint string, log *slog.Logger, state func() State,
) (stop func()) {
	if n == nil {
		return func() {}
	}
	ready := []string{"READY=1", "STATUS=" + statusLine(state())}
	if n.moved {
		ready = append(ready, fmt.Sprintf("MAINPID=%d", os.Getpid()))
	}
	if err := n.send(ready...); err != nil {
		log.Warn("the service manager does not listen", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.keepInformed(ctx, mountpoint, log, state)
		_ = n.send("STOPPING=1")
	}()
	return func() {
		cancel()
		select {
		case <-done:
		case <-time.After(time.Second): // a hung mount holds up its statfs, not the end
		}
		n.socket.Close()
	}
}

// keepInformed renews the status line and answers the watchdog. The watchdog's question goes the
// way of every reader's, through the kernel to the loop that serves the mount: when that is stuck,
// so is this, and the manager ends the process.
func (n *notifier) keepInformed(
	ctx context.Context, mountpoint string, log *slog.Logger, state func() State,
) {
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	var watch <-chan time.Time // never, without a watchdog
	if n.watchdog > 0 {
		t := time.NewTicker(n.watchdog / 2)
		defer t.Stop()
		watch = t.C
	}
	said := statusLine(state())
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch:
			var st unix.Statfs_t
			if err := unix.Statfs(mountpoint, &st); err != nil {
				log.Warn("the mount does not answer the watchdog",
					"mountpoint", mountpoint, "error", err)
				continue
			}
			_ = n.send("WATCHDOG=1") // a manager that restarts misses one; the next comes in time
		case <-status.C:
			if line := statusLine(state()); line != said && n.send("STATUS="+line) == nil {
				said = line
			}
		}
	}
}

// statusLine is a mount in one line, for systemctl status.
func statusLine(s State) string {
	line := fmt.Sprintf("%s: fetched %s; cache: %d hits, %d misses",
		safetext.Plain(s.Image), s.Fetched(), s.CacheHits, s.CacheMisses)
	switch n := len(s.LastErrors); {
	case n >= keptErrors:
		line += fmt.Sprintf("; errors: %d or more", n)
	case n > 0:
		line += fmt.Sprintf("; errors: %d", n)
	}
	if s.Offline {
		line += "; offline"
	}
	return line
}
