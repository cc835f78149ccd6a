package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/reader"
	"github.com/pfmount/pfmount/fetch/ref"
)

func mountCommand() *cli.Command {
	flags := append([]cli.Flag{
		&cli.BoolFlag{Name: "foreground", Aliases: []string{"f"}, Usage: "stay in the foreground and log to stderr"},
		&cli.StringFlag{Name: "subdir", Usage: "mount the image's folder `PATH` (e.g. world/fs) as the root"},
		&cli.IntFlag{Name: "uid", Usage: "show everything as owned by user `UID`", DefaultText: "yours", Value: os.Getuid()},
		&cli.IntFlag{Name: "gid", Usage: "show everything as owned by group `GID`", DefaultText: "yours", Value: os.Getgid()},
		&cli.BoolFlag{Name: "fake", Hidden: true, Usage: "check everything and mount nothing (mount -f)"},
		&cli.BoolFlag{Name: "noexec", Usage: "let no program be executed from the mount"},
		&cli.BoolFlag{Name: "allow-other", Usage: "let other users in, too, as far as modes allow"},
		&cli.StringFlag{Name: "prefetch", Usage: "fetch `WHAT` before it is read: auto (what comes next where files are read in order), none, all", Value: prefetchAuto},
		&cli.BoolFlag{
			Name:  "no-hints",
			Usage: "neither record nor use the order in which files are read",
		},
		&cli.StringFlag{Name: "log-file", Usage: "log to `FILE` (10 MiB, and one older)", DefaultText: "$XDG_STATE_HOME/pfmount/MOUNTPOINT.log"},
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

// mountConfig is a mount as the user asked for it.
type mountConfig struct {
	image      string // as typed
	ref        ref.Ref
	mountpoint string // absolute, symlinks resolved
	subdir     string
	uid, gid   uint32
	allowOther bool
	noExec     bool
	logFile    string
	verbose    bool
	prefetch   prefetchConfig
}

func mountAction(c *cli.Context) error {
	cfg, err := parseMount(c)
	if err != nil {
		return err
	}
	if isChild() {
		return runChild(c, cfg)
	}
	// What can be known without the image is said before anything is started.
	if err := reader.CheckOpenFiles(); err != nil {
		return err
	}
	if err := checkMountpoint(c, cfg); err != nil {
		return err
	}
	if c.Bool("fake") {
		return checkMount(c, cfg)
	}
	if c.Bool("foreground") {
		return runForeground(c, cfg)
	}
	_, password, err := readLogin(c, cfg.ref)
	if err != nil {
		return err
	}
	return startBackground(c.Context, cfg.mountpoint, childStdin(password))
}

// checkMount does everything of a mount but the mounting.
func checkMount(c *cli.Context, cfg *mountConfig) error {
	d := &daemon{cfg: cfg, log: consoleLogger(cfg.verbose)}
	source, err := readerConfig(c, cfg.ref, d.log)
	if err != nil {
		return err
	}
	if d.image, err = reader.Open(c.Context, cfg.ref, source); err != nil {
		return err
	}
	_, err = d.root()
	return errors.Join(err, d.image.Close())
}

func parseMount(c *cli.Context) (*mountConfig, error) {
	switch c.NArg() {
	case 0:
		return nil, usagef("no IMAGE and no MOUNTPOINT given (see pfmount --help)")
	case 1:
		return nil, usagef("no MOUNTPOINT given for %q (see pfmount --help)", c.Args().First())
	case 2:
	default:
		return nil, usagef("unexpected argument %q (see pfmount --help)", c.Args().Get(2))
	}
	imageRef, err := parseImage(c, c.Args().Get(0))
	if err != nil {
		return nil, err
	}
	if c.Int("uid") < 0 || c.Int("gid") < 0 {
		return nil, usagef("--uid and --gid are numbers from 0")
	}
	cfg := &mountConfig{
		image: c.Args().Get(0), ref: imageRef, subdir: strings.Trim(c.String("subdir"), "/"),
		uid: uint32(c.Int("uid")), gid: uint32(c.Int("gid")),
		allowOther: c.Bool("allow-other"), noExec: c.Bool("noexec"), verbose: c.Bool("verbose"),
	}
	if cfg.prefetch, err = parsePrefetch(c); err != nil {
		return nil, err
	}
	if isChild() {
		cfg.mountpoint = os.Getenv(mountpointVar)
	} else if cfg.mountpoint, err = resolveMountpoint(c.Args().Get(1)); err != nil {
		return nil, err
	}
	if cfg.logFile, err = logPath(c, cfg.mountpoint); err != nil {
		return nil, err
	}
	return cfg, nil
}

// logPath is --log-file, else one file per mount point in the user's state
// folder; without a HOME, root has /var/log/pfmount.
func logPath(c *cli.Context, mountpoint string) (string, error) {
	if name := c.String("log-file"); name != "" {
		return filepath.Abs(name)
	}
	name := strings.ReplaceAll(strings.Trim(mountpoint, "/"), "/", "-")
	if len(name) > 100 {
		name = name[len(name)-100:]
	}
	name = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '_'
		}
		return r
	}, name) + "-" + shortHash(mountpoint) + ".log"
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "pfmount", name), nil
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "pfmount", name), nil
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/log/pfmount", name), nil
	}
	return "", usagef("no place for the log: HOME is not set, and user %d has no home folder in"+
		" /etc/passwd; give one with --log-file", os.Geteuid())
}
