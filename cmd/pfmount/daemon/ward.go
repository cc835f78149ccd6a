package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/cmd/pfmount/console"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

const (
	maxCrash   = 1 << 20         // bytes of a crash report that are kept
	guardLook  = time.Second     // how often a guard looks at its process
	crashGrace = 4 * time.Second // how long the kernel may take to end a dead process's connection
)

// RunGuard is the guard's whole life; it returns the exit code.
func RunGuard() int {
	signal.Ignore(
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	if err := runGuard(os.NewFile(3, "crash")); err != nil {
		return 1
	}
	return 0
}

// runGuard guards the mount of the process at the other end of the pipe, and returns when that has
// ended and nothing is left of the mount.
func runGuard(crashes io.Reader) error {
	pipe := bufio.NewReaderSize(crashes, 4096)
	w := new(ward)
	line, err := pipe.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &w.guardConfig)
	}
	if err != nil {
		return err
	}
	go w.watch()
	if next, _ := pipe.Peek(1); string(next) == "{" { // a report begins otherwise
		if line, err = pipe.ReadBytes('\n'); err == nil {
			w.learn(line)
		}
	}
	report, _ := io.ReadAll(io.LimitReader(pipe, maxCrash)) // what came is reported
	if len(report) == 0 {
		return nil
	}
	_, _ = io.Copy(io.Discard, pipe) // the rest, until the process is gone
	log, done := w.logger(report)
	defer done()
	log = log.With("image", w.Image, "mountpoint", string(w.Mountpoint))
	removeLeftover(string(w.Socket), os.Geteuid())
	if err := w.unmount(); err != nil {
		log.Error("the process of a mount crashed, and the mount cannot be detached", "error", err)
		return err
	}
	log.Error("the process of a mount crashed: unmounted", "process", w.PID)
	return nil
}

// ward is what a guard guards, as far as it was told.
type ward struct {
	guardConfig
	made atomic.Pointer[made]
}

// learn takes the pipe's second line.
func (w *ward) learn(line []byte) {
	var m made
	if err := json.Unmarshal(line, &m); err == nil {
		w.made.Store(&m)
	}
}

// find returns the mount as it is now, or nil: the one that was made, or, where the process ended
// before it could tell, the one that is seen in its place.
func (w *ward) find() (*mounts.Mount, error) {
	table, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	if m := w.made.Load(); m != nil {
		return table.Find(&mounts.Mount{ID: m.ID, Dev: m.Dev}), nil
	}
	if top := table.Top(string(w.Mountpoint)); top != nil && top.Ours() && top.Parent == w.On {
		return top, nil
	}
	return nil, nil
}

// watch ends the connection of a process that was killed and yet is not gone: the kernel may hold
// it while it stores a file in the page cache, and readers with it, which would wait for ever.
func (w *ward) watch() {
	for was := false; ; time.Sleep(guardLook) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.PID))
		// A zombie: its first thread is gone, and not all are.
		dying := bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z"))
		if dying && was {
			m, err := w.find()
			// Another mount may have its numbers by now.
			if err == nil && m != nil && mounts.Probe(m) != mounts.Alive {
				_ = mounts.Abort(m) // there is no log to say why not
			}
		}
		was = dying
	}
}

// logger opens the mount's log and writes the crash report into it. On stderr the runtime has
// written it already.
func (c guardConfig) logger(report []byte) (*slog.Logger, func()) {
	if len(c.LogFile) == 0 {
		return console.Logger(false), func() {}
	}
	file, err := openLog(string(c.LogFile))
	if err != nil { // to unmount is what matters
		return slog.New(slog.DiscardHandler), func() {}
	}
	_, _ = file.Write(report)
	return slog.New(slog.NewTextHandler(file, nil)), func() { file.Close() }
}

// unmount detaches the mount once it is stale. Whatever else is at its place is left alone.
func (w *ward) unmount() error {
	for end := time.Now().Add(crashGrace); ; time.Sleep(20 * time.Millisecond) {
		m, err := w.find()
		if err != nil || m == nil {
			return err
		}
		if mounts.Probe(m) == mounts.Stale {
			return mounts.Detach(m, true)
		}
		if time.Now().After(end) {
			return errors.New("another mount is at its place or over it")
		}
	}
}
