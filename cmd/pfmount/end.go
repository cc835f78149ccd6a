package main

import (
	"context"
	"os"
	"time"

	"github.com/pfmount/pfmount/fusefs/mounts"
)

// How a mount ends: within endLimit of whatever began it, however busy it is.
const (
	readGrace = 3 * time.Second // waiting reads may still finish after a mount was told to end
	lastGrace = 4 * time.Second // open files may be read that long
	endLimit  = 5 * time.Second // all of it
	hardEnd   = endLimit - 200*time.Millisecond

	holdersAtEnd = 500 * time.Millisecond // for naming the users of a mount that ends
)

// end waits until the mount is gone, and makes it go when ctx ends (the first signal) or when it was detached, by
// whoever, with files open: waiting reads get readGrace, then a plain unmount, then a lazy one.
// The next signal goes straight to the lazy one.
func (d *daemon) end(ctx context.Context) error {
	var hurry <-chan struct{} = d.second
	select {
	case <-d.server.Done():
		d.limitEnd()
		return d.ended()
	case <-d.server.Detached():
		hurry = ctx.Done()
		d.log.Warn("detached while in use: ending", "mountpoint", d.cfg.mountpoint)
	case <-ctx.Done():
		d.log.Info("ending", "mountpoint", d.cfg.mountpoint)
	}
	d.limitEnd()
	d.session.prefetch.stop()
	limit := time.After(lastGrace)
	drained := d.server.StopReads(readGrace)
	err := d.server.Unmount()
	if err != nil {
		select {
		case <-drained:
			err = d.server.Unmount()
		case <-hurry:
		}
	}
	if err != nil {
		users := mounts.Holders(d.cfg.mountpoint, holdersAtEnd)
		if err := d.server.Detach(); err != nil {
			return mountf("%s: cannot be unmounted: %w", d.cfg.mountpoint, err)
		}
		d.log.Warn("busy: detached, and whoever still uses it gets errors", "mountpoint", d.cfg.mountpoint, "holders", users)
		return nil // the connection ends with this process
	}
	select {
	case <-d.server.Done():
	case <-limit:
	case <-hurry:
	}
	return nil
}

// abortGrace is how long the mount may be in the table after its connection has ended: a forced unmount ends the connection
// first.
const abortGrace = time.Second

// ended says what the end of the connection was. Where the mount is still there, the connection was aborted, and what is left
// is dead: it is detached, and the end is a failure.
func (d *daemon) ended() error {
	var m *mounts.Mount
	for end := time.Now().Add(abortGrace); ; time.Sleep(20 * time.Millisecond) {
		table, err := mounts.Read()
		if err != nil {
			return mountf("%s: the connection has ended; whether the mount is gone cannot be told: %w", d.cfg.mountpoint, err)
		}
		if m = table.Find(d.server.Mounted()); m == nil {
			d.log.Info("unmounted", "mountpoint", d.cfg.mountpoint)
			return nil
		}
		if time.Now().After(end) {
			break
		}
	}
	if over, err := mounts.At(m.Point); err == nil && m.Same(over) && mounts.Probe(m) != mounts.Stale {
		// It is alive: the kernel has given the numbers to another mount.
		d.log.Info("unmounted", "mountpoint", d.cfg.mountpoint)
		return nil
	}
	const why = "the kernel has dropped the connection while the mount was in use (umount -f, or the abort file of fusectl)"
	if err := mounts.Detach(m, true); err != nil {
		return mountf("%s: %s; the dead mount cannot be detached: %w", m.Point, why, err)
	}
	d.log.Error("aborted: detached the dead mount", "mountpoint", m.Point)
	return mountf("%s: %s: detached", m.Point, why)
}

// limitEnd bounds what is left to do, such as ending a fill whose disk hangs: this process ends in time without it.
// What stays of a fill is a file that the next one to want the blob starts over.
func (d *daemon) limitEnd() {
	time.AfterFunc(hardEnd, func() {
		d.log.Error("the end takes too long: leaving what is under way", "mountpoint", d.cfg.mountpoint)
		if d.socket != nil {
			d.socket.removeSocket()
		}
		os.Exit(exitMount)
	})
}

// abandon detaches what a mount that is being made has mounted: no server is known yet that could.
func (d *daemon) abandon() {
	top, err := mounts.At(d.cfg.mountpoint)
	if err == nil && top != nil && top.Ours() {
		_ = mounts.Detach(top, true) // the process ends in any case
	}
}

// leave hurries end, and takes its place after secondGrace: whatever hangs, the process ends
// and its mount goes.
func (d *daemon) leave() {
	close(d.second)
	time.Sleep(secondGrace)
	_ = d.server.Detach() // the process ends in any case
	if d.socket != nil {
		d.socket.removeSocket()
	}
	d.log.Error("a second signal: leaving what is under way", "mountpoint", d.cfg.mountpoint)
}
