// Package daemon is a mount's own process: it starts in the background, serves an image, is guarded
// against its own crash, tells its state and ends. It promises that a mount ends within seconds of
// whatever began its end, and that neither its start nor its end touches another mount.
//
// It does not know where images come from, and reads no command line: a Config says all.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/cmd/pfmount/console"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fusefs"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

// processName is how a mount's process shows up in ps(1).
const processName = "pfmount"

// daemon is a served mount.
type daemon struct {
	cfg     *Config
	log     *slog.Logger
	lines   *lines
	crashes string // the log file of crashes; empty: stderr

	image    *Image
	prefetch Prefetcher   // nil: nothing is fetched that is not read
	notify   *notifier    // nil without a service manager
	socket   *stateServer // nil: its state cannot be asked for
	started  time.Time
}

// Foreground serves a mount in this process and logs to stderr. It returns when the mount is gone.
func Foreground(ctx context.Context, cfg *Config) error {
	kept := new(lines)
	options := &slog.HandlerOptions{Level: cfg.Log.level()}
	handlers := []slog.Handler{
		slog.NewTextHandler(os.Stderr, options), slog.NewTextHandler(kept, options),
	}
	if cfg.Log.File != "" {
		file, err := openLog(cfg.Log.File)
		if err != nil {
			return err
		}
		defer file.Close()
		handlers = append(handlers, slog.NewTextHandler(file, options))
	}
	log := slog.New(slog.NewMultiHandler(handlers...))
	d := &daemon{cfg: cfg, lines: kept, log: log, crashes: cfg.Log.File}
	d.notify = takeNotifier(os.Getpid(), log)
	return d.run(ctx, func() error { return nil })
}

// terminalSignals are what a terminal sends to the whole process group of a command.
var terminalSignals = []os.Signal{syscall.SIGINT, syscall.SIGTSTP, syscall.SIGTTOU}

// Background serves a mount in this process, which parent has started, and reports to it. Its
// errors are reported and logged.
func Background(ctx context.Context, cfg *Config, parent *Parent) error {
	// The parent passes on what ends a mount. fusermount3 inherits the ignored signals: killed
	// between mount(2) and its answer, it would leave a dead mount.
	signal.Ignore(terminalSignals...)
	file, err := openLog(cfg.Log.File)
	if err != nil {
		return errors.Join(err, parent.report(cfg.Code(err), err))
	}
	defer file.Close()
	options := &slog.HandlerOptions{Level: cfg.Log.level()}
	caller := new(slog.LevelVar) // what the caller still sees on stderr
	caller.Set(slog.LevelWarn)
	kept := new(lines)
	log := slog.New(slog.NewMultiHandler(console.NewHandler(os.Stderr, caller),
		slog.NewTextHandler(file, options), slog.NewTextHandler(kept, options)))
	d := &daemon{cfg: cfg, lines: kept, log: log, crashes: cfg.Log.File}
	d.notify = takeNotifier(os.Getppid(), log)
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	ready := func() error {
		caller.Set(levelOff)
		err := detach()
		sigint, _ := signal.NotifyContext(ctx, syscall.SIGINT)
		context.AfterFunc(sigint, interrupt)
		return errors.Join(err, parent.report(0, nil))
	}
	if err := d.run(ctx, ready); err != nil {
		caller.Set(levelOff)
		log.Error("mount ended", "image", cfg.Image, "mountpoint", cfg.Mountpoint, "error", err)
		return errors.Join(err, parent.report(cfg.Code(err), err))
	}
	return nil
}

// Check does everything of a mount but the mounting.
func Check(ctx context.Context, cfg *Config) error {
	image, err := cfg.Open(ctx, console.Logger(cfg.Log.Verbose))
	if err != nil {
		return err
	}
	_, err = cfg.View.root(image)
	return errors.Join(err, image.Close())
}

// run opens the image, mounts it, says so through ready, and serves until the mount is gone.
func (d *daemon) run(ctx context.Context, ready func() error) error {
	d.started = time.Now()
	// The background process was started as /proc/self/exe, and ps would call it exe.
	err := os.WriteFile("/proc/self/comm", []byte(processName), 0)
	if err != nil {
		d.log.Debug("the process keeps its name", "error", err)
	}
	if d.image, err = d.cfg.Open(ctx, d.log); err != nil {
		return err
	}
	defer d.image.Close()
	root, err := d.cfg.View.root(d.image)
	if err != nil {
		return err
	}
	// Again, and now for good: a stale mount is cleared only when the image is there to take its
	// place.
	at, err := takeMountpoint(d.cfg, d.log)
	if err != nil {
		return err
	}
	defer at.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.prefetch, err = d.image.Prefetch(); err != nil {
		return err
	}
	guard := d.guardMount(at)
	defer guard.Close()
	on := at.MountID()
	d.cfg.Interrupts.AtSecond(func() { d.abandon(on) })
	server, err := d.mount(at, root)
	if err != nil {
		d.cfg.Interrupts.AtSecond(nil)
		return err
	}
	if err := guard.tell(server.Mounted()); err != nil {
		d.log.Warn("the guard is gone: a crash would leave the mount behind, "+
			"to be removed with pfmount umount", "error", err)
	}
	return d.serve(ctx, server, ready)
}

// mount mounts the image on the directory, and closes that.
func (d *daemon) mount(at *mounts.Dir, root pfimg.Row) (*fusefs.Server, error) {
	view := d.cfg.View
	options := fusefs.Options{
		UID: view.UID, GID: view.GID, Root: root, Image: d.image.Ref, Log: d.log,
		Mount: mounts.Options{
			Source: d.cfg.Image, AllowOther: view.AllowOther, NoExec: view.NoExec,
		},
	}
	if d.prefetch != nil {
		options.Observer = d.prefetch.Observer()
	}
	server, err := fusefs.Mount(at, d.image.Index, d.image.Blobs, options)
	at.Close() // a held directory would keep the file system below busy
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.cfg.Mountpoint, err)
	}
	return server, nil
}

// serve tells of the mount through ready and the socket, and returns when the mount is gone.
func (d *daemon) serve(ctx context.Context, server *fusefs.Server, ready func() error) error {
	if d.prefetch != nil {
		d.prefetch.Serve(server)
	}
	var err error
	if d.socket, err = d.serveState(); err != nil {
		d.log.Warn("no status socket: pfmount status will know little of this mount", "error", err)
	} else {
		defer d.socket.Close()
	}
	end := d.newEnding(server)
	d.cfg.Interrupts.AtSecond(end.leave)
	d.log.Info("mounted", "image", d.image.Ref, "digest", d.image.Digest,
		"mountpoint", d.cfg.Mountpoint, "took", time.Since(d.started).Round(time.Millisecond))
	defer d.notify.announce(ctx, d.cfg.Mountpoint, d.log, d.state)()
	if err := ready(); err != nil {
		return errors.Join(err, end.wait(ctx))
	}
	debug.FreeOSMemory() // what building the index took is not needed again
	return end.wait(ctx)
}

// guardMount starts the guard of a mount at the directory. Without one it is served all the same.
func (d *daemon) guardMount(at *mounts.Dir) *guard {
	socket := filepath.Join(stateDir(os.Geteuid()), socketName(d.cfg.Mountpoint))
	g, err := startGuard(guardConfig{
		Image: d.cfg.Image, PID: os.Getpid(), Mountpoint: []byte(d.cfg.Mountpoint),
		LogFile: []byte(d.crashes), Socket: []byte(socket), On: at.MountID(),
	})
	if err != nil {
		d.log.Warn("no guard: a crash would leave the mount behind, "+
			"to be removed with pfmount umount", "error", err)
		return nil
	}
	return g
}

func (d *daemon) newEnding(s server) *ending {
	e := &ending{
		server: s, mountpoint: d.cfg.Mountpoint, log: d.log, second: make(chan struct{}),
		stopPrefetch: func() {}, removeSocket: func() {},
		exit: func() { os.Exit(d.cfg.Code(fault.ErrMount)) },
	}
	if d.prefetch != nil {
		e.stopPrefetch = d.prefetch.Stop
	}
	if d.socket != nil {
		e.removeSocket = d.socket.removeSocket
	}
	return e
}

// abandon detaches what a mount that is being made has mounted on the mount on: no server is known
// yet that could. A mount of another process is left alone.
func (d *daemon) abandon(on int) {
	top, err := mounts.At(d.cfg.Mountpoint)
	if err == nil && top != nil && top.Ours() && top.Parent == on && top.Source == d.cfg.Image {
		_ = mounts.Detach(top, true) // the process ends in any case
	}
}

// root returns the directory of the image that is shown as the root.
func (v View) root(image *Image) (pfimg.Row, error) {
	if v.Subdir == "" {
		return pfimg.Root, nil
	}
	row, ok := image.Index.Find(v.Subdir)
	if !ok {
		return 0, fault.Usagef("--subdir: %s has no %q", image.Ref, v.Subdir)
	}
	if a, _ := image.Index.Attr(row); a.Kind != pfimg.Dir {
		return 0, fault.Usagef("--subdir: %q in %s is not a folder", v.Subdir, image.Ref)
	}
	return row, nil
}
