package main

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

// Under a service manager (sd_notify(3): Type=notify, WatchdogSec=) a mount says when it can be read, how it is
// doing, that it still answers, and that it ends. The messages are datagrams to the socket that NOTIFY_SOCKET names.

// statusEvery bounds how often the status line is renewed.
const statusEvery = 3 * time.Second

// notifyVars are the manager's words to its service alone. What the service starts (fusermount3, credential helpers)
// must not see them.
var notifyVars = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}

// notifier speaks to the service manager. A nil one has nobody to speak to.
type notifier struct {
	socket   *net.UnixConn
	watchdog time.Duration // the manager's patience; 0: it does not watch
	moved    bool          // this is not the process that the manager started
}

// takeNotifier takes the manager's address out of the environment. started is the process that is its service if
// anything here is: this one, or the parent of one that goes to the background.
func takeNotifier(started int, log *slog.Logger) *notifier {
	address, usec, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range notifyVars {
		os.Unsetenv(name)
	}
	n := &notifier{moved: started != os.Getpid()}
	// A mount that a service's script makes in the background is not that service.
	if address == "" || n.moved && os.Getenv("SYSTEMD_EXEC_PID") != strconv.Itoa(started) {
		return nil
	}
	var err error
	if n.socket, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"}); err != nil {
		log.Warn("the service manager cannot be reached", "NOTIFY_SOCKET", address, "error", err)
		return nil
	}
	if us, err := strconv.ParseInt(usec, 10, 64); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(started)) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n
}

// send sends assignments such as READY=1 in one message.
func (n *notifier) send(assignments ...string) error {
	_, err := n.socket.Write([]byte(strings.Join(assignments, "\n")))
	return err
}

// announce tells the manager that the mount can be read and keeps it informed until stop, or until ctx ends.
func (d *daemon) announce(ctx context.Context) (stop func()) {
	n := d.notify
	if n == nil {
		return func() {}
	}
	ready := []string{"READY=1", "STATUS=" + statusLine(d.state())}
	if n.moved {
		ready = append(ready, fmt.Sprintf("MAINPID=%d", os.Getpid()))
	}
	if err := n.send(ready...); err != nil {
		d.log.Warn("the service manager does not listen", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.keepInformed(ctx)
		_ = n.send("STOPPING=1")
	}()
	return func() {
		cancel()
		select {
		case <-done:
		case <-time.After(time.Second): // a hung mount holds up its statfs, not our end
		}
		n.socket.Close()
	}
}

// keepInformed renews the status line and answers the watchdog. The watchdog's question goes the way of every reader's,
// through the kernel to the loop that serves the mount: when that is stuck, so is this, and the manager ends us.
func (d *daemon) keepInformed(ctx context.Context) {
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	var watch <-chan time.Time // never, without a watchdog
	if d.notify.watchdog > 0 {
		t := time.NewTicker(d.notify.watchdog / 2)
		defer t.Stop()
		watch = t.C
	}
	said := statusLine(d.state())
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch:
			var st unix.Statfs_t
			if err := unix.Statfs(d.cfg.mountpoint, &st); err != nil {
				d.log.Warn("the mount does not answer the watchdog", "mountpoint", d.cfg.mountpoint, "error", err)
				continue
			}
			_ = d.notify.send("WATCHDOG=1") // a manager that restarts misses one; the next comes in time
		case <-status.C:
			if line := statusLine(d.state()); line != said && d.notify.send("STATUS="+line) == nil {
				said = line
			}
		}
	}
}

// statusLine is a mount in one line, for systemctl status.
func statusLine(s mountState) string {
	line := fmt.Sprintf("%s: fetched %s; cache: %d hits, %d misses", safetext.Plain(s.Image), s.fetched(), s.CacheHits, s.CacheMisses)
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
