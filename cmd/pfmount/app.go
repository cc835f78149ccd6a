package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// newApp describes the command line. Mounting is the hidden command "mount":
// arrange inserts it when the first argument names no command.
func newApp() *cli.App {
	cli.VersionFlag = &cli.BoolFlag{
		Name: "version", Aliases: []string{"V"}, Usage: "print the version",
	}
	mount := mountCommand()
	app := &cli.App{
		Name:      "pfmount",
		Usage:     "mount ProcessFork session images from OCI registries, lazily and verified",
		UsageText: "pfmount [options] IMAGE MOUNTPOINT\npfmount COMMAND [options] ARGUMENTS",
		Version:   version,
		Commands: []*cli.Command{
			mount, umountCommand(), statusCommand(), inspectCommand(), lsCommand(), catCommand(),
			warmCommand(), verifyCommand(), pushCommand(), pullCommand(), existsCommand(),
			doctorCommand(), cacheCommand(), completionCommand(), manpageCommand(),
		},
		DisableSliceFlagSeparator: true,
		HideHelpCommand:           true,
		OnUsageError:              cmdline.OnUsageError,
		ExitErrHandler:            func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			c.App.Writer = os.Stderr
			if err := cli.ShowAppHelp(c); err != nil {
				return err
			}
			return shownError{fault.Usagef("no image given")}
		},
	}
	for _, c := range app.Commands {
		setUsageError(c)
	}
	app.CustomAppHelpTemplate = appHelp(mount)
	return app
}

func setUsageError(c *cli.Command) {
	c.OnUsageError = cmdline.OnUsageError
	for _, s := range c.Subcommands {
		setUsageError(s)
	}
}

// appHelp is urfave/cli's own page, with the options of the hidden mount
// command and what a first-time user looks for.
func appHelp(mount *cli.Command) string {
	var b strings.Builder
	b.WriteString(`NAME:
   {{template "helpNameTemplate" .}}

USAGE:
   {{wrap .UsageText 3}}

IMAGE is one of
   [oci://]HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]
   oci-layout:DIR[:TAG]      an OCI image layout on disk
   file:///DIR               a folder as the reference tool writes it
   store:CID                 an image of the local store ($PF_STORE, ~/.processfork)

COMMANDS:{{template "visibleCommandCategoryTemplate" .}}

OPTIONS OF A MOUNT (also as -o NAME[=VALUE],...):
`)
	for _, f := range mount.VisibleFlags() {
		fmt.Fprintf(&b, "   %s\n", f.String())
	}
	b.WriteString(`   --help, -h	show help (also: pfmount COMMAND --help)
   --version, -V	print the version

` + loginHelp + `
EXAMPLE:
   pfmount ghcr.io/org/repo:tag /mnt/sess
   grep -rn TODO /mnt/sess/world/fs
   pfmount umount /mnt/sess

LIMITATIONS:
   Linux only. Under mmap or exec a failed fetch is SIGBUS. No extended attributes.

EXIT CODES:
`)
	for _, e := range exitMeanings {
		fmt.Fprintf(&b, "   %-3d  %s\n", e.Code, e.Means)
	}
	return b.String()
}
