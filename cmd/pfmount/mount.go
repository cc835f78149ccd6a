package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/daemon"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fusefs/mounts"
)

func mountCommand() *cli.Command {
	flags := append([]cli.Flag{
		&cli.BoolFlag{
			Name: "foreground", Aliases: []string{"f"},
			Usage: "stay in the foreground and log to stderr",
		},
		&cli.StringFlag{
			Name: "subdir", Usage: "mount the image's folder `PATH` (e.g. world/fs) as the root",
		},
		&cli.IntFlag{
			Name: "uid", Value: os.Getuid(), Usage: "show everything as owned by user `UID`",
			DefaultText: "yours",
		},
		&cli.IntFlag{
			Name: "gid", Value: os.Getgid(), Usage: "show everything as owned by group `GID`",
			DefaultText: "yours",
		},
		&cli.BoolFlag{
			Name: "fake", Hidden: true, Usage: "check everything and mount nothing (mount -f)",
		},
		&cli.BoolFlag{Name: "noexec", Usage: "let no program be executed from the mount"},
		&cli.BoolFlag{Name: "allow-other", Usage: "let other users in, too, as far as modes allow"},
		&cli.StringFlag{
			Name: "prefetch", Value: prefetchAuto,
			Usage: "fetch `WHAT` before it is read: " +
				"auto (what comes next where files are read in order), none, all",
		},
		&cli.BoolFlag{
			Name: "no-hints", Usage: "neither record nor use the order in which files are read",
		},
		&cli.StringFlag{
			Name: "log-file", Usage: "log to `FILE` (10 MiB, and one older)",
			DefaultText: "$XDG_STATE_HOME/pfmount/MOUNTPOINT.log",
		},
		verboseFlag(),
	}, append(imageFlags(), cacheFlags()...)...)
	return &cli.Command{
		Name:      "mount",
		Hidden:    true,
		Usage:     "mount an image (the command's name may be left out)",
		ArgsUsage: "IMAGE MOUNTPOINT",
		Description: `Verifies the image's signature, mounts it read-only and returns once it can be
read; a background process serves it until it is unmounted.

Example: pfmount -o subdir=world/fs localhost:5000/team/sess:v1 /mnt/sess

Limitations: Linux only. Under mmap or exec a failed fetch is SIGBUS, as on any
network file system. No extended attributes.`,
		Flags:  flags,
		Action: mountAction,
	}
}

func mountAction(c *cli.Context) error {
	parent, err := daemon.TakeParent()
	if err != nil {
		return err
	}
	cfg, err := mountConfig(c, parent)
	if err != nil {
		return err
	}
	if parent != nil {
		if err := daemon.Background(c.Context, cfg, parent); err != nil {
			return shownError{err}
		}
		return nil
	}
	// What can be known without the image is said before anything is started.
	if err := reader.CheckOpenFiles(); err != nil {
		return err
	}
	if err := daemon.CheckMountpoint(cfg); err != nil {
		return err
	}
	if c.Bool("fake") {
		return daemon.Check(c.Context, cfg)
	}
	if c.Bool("foreground") {
		if !c.IsSet("log-file") {
			cfg.Log.File = ""
		}
		return daemon.Foreground(c.Context, cfg)
	}
	imageRef, err := parseImage(c, cfg.Image)
	if err != nil {
		return err
	}
	_, password, err := readLogin(c, imageRef)
	if err != nil {
		return err
	}
	return daemon.Start(c.Context, cfg.Mountpoint, childStdin(password), cfg.Interrupts)
}

// mountConfig reads what a mount is asked for. parent is nil but in the background.
func mountConfig(c *cli.Context, parent *daemon.Parent) (*daemon.Config, error) {
	switch c.NArg() {
	case 0:
		return nil, fault.Usagef("no IMAGE and no MOUNTPOINT given (see pfmount --help)")
	case 1:
		return nil, fault.Usagef("no MOUNTPOINT given for %q (see pfmount --help)",
			c.Args().First())
	case 2:
	default:
		return nil, fault.Usagef("unexpected argument %q (see pfmount --help)", c.Args().Get(2))
	}
	imageRef, err := parseImage(c, c.Args().Get(0))
	if err != nil {
		return nil, err
	}
	if c.Int("uid") < 0 || c.Int("gid") < 0 {
		return nil, fault.Usagef("--uid and --gid are numbers from 0")
	}
	prefetch, err := parsePrefetch(c)
	if err != nil {
		return nil, err
	}
	cacheDir, err := cacheDir(c)
	if err != nil {
		return nil, err
	}
	cfg := &daemon.Config{
		Image: c.Args().Get(0),
		View: daemon.View{
			Subdir: strings.Trim(c.String("subdir"), "/"),
			UID:    uint32(c.Int("uid")), GID: uint32(c.Int("gid")),
			AllowOther: c.Bool("allow-other"), NoExec: c.Bool("noexec"),
		},
		Apart: map[string]string{"cache": cacheDir, "image": imageRef.Dir()},
		Log:   daemon.Log{Verbose: c.Bool("verbose")},
		Open: func(ctx context.Context, log *slog.Logger) (*daemon.Image, error) {
			return openServed(ctx, c, prefetch, log)
		},
		Interrupts: interruptsOf(c),
		Code:       interruptedCode,
	}
	if parent != nil {
		cfg.Mountpoint = parent.Mountpoint
	} else if cfg.Mountpoint, err = resolveMountpoint(c.Args().Get(1)); err != nil {
		return nil, err
	}
	if name := c.String("log-file"); name != "" {
		cfg.Log.File, err = filepath.Abs(name)
	} else {
		cfg.Log.File, err = daemon.LogPath(cfg.Mountpoint)
	}
	return cfg, err
}

// interruptedCode is the exit code of a mount's start that ended with err.
func interruptedCode(err error) int {
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return exitCode(err)
}

// resolveMountpoint makes a mount point absolute and free of symbolic links.
func resolveMountpoint(name string) (string, error) {
	if name == "" {
		return "", fault.Usagef("the mount point is empty")
	}
	return mounts.Resolve(name)
}
