package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// processName is how a mount's process shows up in ps(1).
const processName = "pfmount"

// daemon is a served mount.
type daemon struct {
	cfg     *mountConfig
	log     *slog.Logger
	lines   *lines
	session *session
	server  *fusefs.Server
	notify  *notifier    // nil without a service manager
	socket  *stateServer // nil: pfmount status cannot ask
	started time.Time
	second  chan struct{} // closed when a second signal came

	guardLog string // where a crash is reported; empty: stderr
}

// runForeground serves a mount in this process, logging to stderr.
func runForeground(c *cli.Context, cfg *mountConfig) error {
	kept := new(lines)
	level := logLevel(cfg.verbose)
	handlers := []slog.Handler{
		slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}),
		slog.NewTextHandler(kept, &slog.HandlerOptions{Level: level}),
	}
	if c.IsSet("log-file") {
		file, err := logFile(cfg.logFile)
		if err != nil {
			return err
		}
		defer file.Close()
		handlers = append(handlers, slog.NewTextHandler(file, &slog.HandlerOptions{Level: level}))
	}
	d := &daemon{cfg: cfg, lines: kept, log: slog.New(slog.NewMultiHandler(handlers...))}
	d.notify = takeNotifier(os.Getpid(), d.log)
	if c.IsSet("log-file") {
		d.guardLog = cfg.logFile
	}
	return d.run(c, func() error { return nil })
}

// runChild serves a mount in the background process.
func runChild(c *cli.Context, cfg *mountConfig) error {
	// The parent passes on what ends a mount. fusermount3 inherits the ignored signals: killed
	// between mount(2) and its answer, it would leave a dead mount.
	signal.Ignore(terminalSignals...)
	rep, err := newReporter()
	if err != nil {
		return err
	}
	file, err := logFile(cfg.logFile)
	if err != nil {
		return shownError{errors.Join(err, rep.send(err))}
	}
	defer file.Close()
	kept, level := new(lines), logLevel(cfg.verbose)
	caller := new(slog.LevelVar) // what the caller still sees on stderr
	caller.Set(slog.LevelWarn)
	d := &daemon{cfg: cfg, guardLog: cfg.logFile, lines: kept, log: slog.New(slog.NewMultiHandler(
		newConsole(os.Stderr, caller),
		slog.NewTextHandler(file, &slog.HandlerOptions{Level: level}),
		slog.NewTextHandler(kept, &slog.HandlerOptions{Level: level}),
	))}
	d.notify = takeNotifier(os.Getppid(), d.log)
	ctx, interrupt := context.WithCancel(c.Context)
	defer interrupt()
	c.Context = ctx
	ready := func() error {
		caller.Set(levelOff)
		err := detach()
		sigint, _ := signal.NotifyContext(ctx, syscall.SIGINT)
		context.AfterFunc(sigint, interrupt)
		return errors.Join(err, rep.send(nil))
	}
	if err := d.run(c, ready); err != nil {
		caller.Set(levelOff)
		d.log.Error("mount ended", "image", cfg.image, "mountpoint", cfg.mountpoint, "error", err)
		if rep.pipe != nil {
			return shownError{errors.Join(err, rep.send(err))}
		}
		return shownError{err}
	}
	return nil
}

func logLevel(verbose bool) slog.Level {
	if verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// run opens the image, mounts it, says so through ready, and serves until the
// mount is gone.
func (d *daemon) run(c *cli.Context, ready func() error) error {
	ctx := c.Context
	d.started, d.second = time.Now(), make(chan struct{})
	// The background process was started as /proc/self/exe, and ps would call it exe.
	err := os.WriteFile("/proc/self/comm", []byte(processName), 0)
	if err != nil {
		d.log.Debug("the process keeps its name", "error", err)
	}
	if d.session, err = openIndexed(ctx, c, d.cfg.image, d.log); err != nil {
		return err
	}
	defer d.session.Close()
	root, err := d.root()
	if err != nil {
		return err
	}
	// Again, and now for good: a stale mount is cleared only when the image
	// is there to take its place.
	at, err := takeMountpoint(c, d.cfg, d.log)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.session.startPrefetch(c, d.cfg.prefetch); err != nil {
		return err
	}
	guard := d.guardMount(at)
	defer guard.Close()
	options := fusefs.Options{
		UID: d.cfg.uid, GID: d.cfg.gid, Root: root,
		Image: d.session.image.Ref().String(), Log: d.log,
		Mount: mounts.Options{Source: d.cfg.image, AllowOther: d.cfg.allowOther, NoExec: d.cfg.noExec},
	}
	d.session.prefetch.watch(&options)
	atSecond(ctx, d.abandon)
	d.server, err = fusefs.Mount(at, d.session.index, d.session.blobs(), options)
	at.Close() // a held folder would keep the file system below busy
	if err != nil {
		return fmt.Errorf("%s: %w", d.cfg.mountpoint, err)
	}
	if err := guard.tell(d.server.Mounted()); err != nil {
		d.log.Warn("the guard is gone: a crash would leave the mount behind, to be removed with pfmount umount", "error", err)
	}
	d.session.prefetch.showTo(d.server)
	if d.socket, err = d.serveState(); err != nil {
		d.log.Warn("no status socket: pfmount status will know little of this mount", "error", err)
	} else {
		defer d.socket.Close()
	}
	atSecond(ctx, d.leave)
	d.log.Info("mounted", "image", d.session.image.Ref().String(), "digest", d.session.image.Digest(),
		"mountpoint", d.cfg.mountpoint, "took", time.Since(d.started).Round(time.Millisecond))
	defer d.announce(ctx)()
	if err := ready(); err != nil {
		return errors.Join(err, d.end(ctx))
	}
	debug.FreeOSMemory() // what building the index took is not needed again
	return d.end(ctx)
}

func (d *daemon) root() (pfimg.Row, error) {
	if d.cfg.subdir == "" {
		return pfimg.Root, nil
	}
	row, ok := d.session.index.Find(d.cfg.subdir)
	if !ok {
		return 0, usagef("--subdir: %s has no %q", d.session.image.Ref(), d.cfg.subdir)
	}
	if a, _ := d.session.index.Attr(row); a.Kind != pfimg.Dir {
		return 0, usagef("--subdir: %q in %s is not a folder", d.cfg.subdir, d.session.image.Ref())
	}
	return row, nil
}
