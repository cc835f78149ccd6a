package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fusefs"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// EndLimit is how long the end of a mount takes at most, however busy it is.
const EndLimit = 5 * time.Second

const (
	readGrace    = 3 * time.Second // waiting reads may still finish after a mount was told to end
	lastGrace    = 4 * time.Second // open files may be read that long
	hardEnd      = EndLimit - 200*time.Millisecond
	holdersLimit = 500 * time.Millisecond // for naming the users of a mount that ends
	// abortGrace is how long the mount may be in the table after its connection has ended: a forced
	// unmount ends the connection first.
	abortGrace = time.Second
)

// server is a fusefs.Server as its end sees it.
type server interface {
	serverEvents
	serverMount
}

type serverEvents interface {
	Done() <-chan struct{}
	Detached() <-chan struct{}
	StopReads(grace time.Duration) <-chan struct{}
}

type serverMount interface {
	Unmount() error
	Detach() error
	Mounted() *mounts.Mount
}

var _ server = (*fusefs.Server)(nil)

// ending is how a mount ends: within EndLimit of whatever began its end.
type ending struct {
	server     server
	mountpoint string
	log        *slog.Logger
	second     chan struct{} // closed when a second signal came

	stopPrefetch func()
	removeSocket func()
	exit         func() // ends this process, as its mount could not end in order
}

// wait waits until the mount is gone, and makes it go when ctx ends (the first signal) or when it
// was detached with files open: waiting reads get readGrace, then a plain unmount, then a lazy one.
// The next signal goes straight to the lazy one.
func (e *ending) wait(ctx context.Context) error {
	var hurry <-chan struct{} = e.second
	select {
	case <-e.server.Done():
		e.limit()
		return e.ended()
	case <-e.server.Detached():
		hurry = ctx.Done()
		e.log.Warn("detached while in use: ending", "mountpoint", e.mountpoint)
	case <-ctx.Done():
		e.log.Info("ending", "mountpoint", e.mountpoint)
	}
	e.limit()
	e.stopPrefetch()
	limit := time.After(lastGrace)
	drained := e.server.StopReads(readGrace)
	err := e.server.Unmount()
	if err != nil {
		select {
		case <-drained:
			err = e.server.Unmount()
		case <-hurry:
		}
	}
	if err != nil {
		users := mounts.Holders(e.mountpoint, holdersLimit)
		if err := e.server.Detach(); err != nil {
			return fault.Mountf("%s: cannot be unmounted: %w", e.mountpoint, err)
		}
		e.log.Warn("busy: detached, and its users get errors from now on",
			"mountpoint", e.mountpoint, "holders", users)
		return nil // the connection ends with this process
	}
	select {
	case <-e.server.Done():
	case <-limit:
	case <-hurry:
	}
	return nil
}

// ended says what the end of the connection was. Where the mount is still there, the connection was
// aborted, and what is left is dead: it is detached, and the end is a failure.
func (e *ending) ended() error {
	var m *mounts.Mount
	for end := time.Now().Add(abortGrace); ; time.Sleep(20 * time.Millisecond) {
		table, err := mounts.Read()
		if err != nil {
			return fault.Mountf("%s: the connection has ended; "+
				"whether the mount is gone is not known: %w", e.mountpoint, err)
		}
		if m = table.Find(e.server.Mounted()); m == nil {
			e.log.Info("unmounted", "mountpoint", e.mountpoint)
			return nil
		}
		if time.Now().After(end) {
			break
		}
	}
	over, err := mounts.At(m.Point)
	if err == nil && m.Same(over) && mounts.Probe(m) != mounts.Stale {
		// It is alive: the kernel has given the numbers to another mount.
		e.log.Info("unmounted", "mountpoint", e.mountpoint)
		return nil
	}
	const why = "the kernel has dropped the connection while the mount was in use " +
		"(umount -f, or the abort file of fusectl)"
	if err := mounts.Detach(m, true); err != nil {
		return fault.Mountf("%s: %s; the dead mount cannot be detached: %w", m.Point, why, err)
	}
	e.log.Error("aborted: detached the dead mount", "mountpoint", m.Point)
	return fault.Mountf("%s: %s: detached", m.Point, why)
}

// limit bounds what is left to do, such as ending a fill whose disk hangs: this process ends in
// time without it. What stays of a fill is a file that the next reader of the blob starts over.
func (e *ending) limit() *time.Timer {
	return time.AfterFunc(hardEnd, func() {
		e.log.Error("the end takes too long: leaving what is under way", "mountpoint", e.mountpoint)
		e.removeSocket()
		e.exit()
	})
}

// leave hurries wait, and takes its place after secondGrace: the process ends then, and its mount
// goes, whatever hangs.
func (e *ending) leave() {
	close(e.second)
	time.Sleep(secondGrace)
	_ = e.server.Detach() // the process ends in any case
	e.removeSocket()
	e.log.Error("a second signal: leaving what is under way", "mountpoint", e.mountpoint)
}
