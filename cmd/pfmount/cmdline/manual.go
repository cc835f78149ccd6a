package cmdline

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// Manual returns the manual page of app as roff, in its first section. The options of the mount
// stand for those of the program, and those that other commands share with it are named there
// alone.
func Manual(app *cli.App) (string, error) {
	mount := app.Command("mount")
	app.Flags = mount.VisibleFlags()
	for _, c := range app.Commands {
		documented(c, mount)
		for _, s := range c.Subcommands {
			documented(s, mount)
			s.Usage = "pfmount " + c.Name + " " + s.Usage
		}
	}
	return app.ToManWithSection(1)
}

// documented makes of the help of a command what the cli library writes into a manual.
func documented(c, mount *cli.Command) {
	var own []cli.Flag
	var shared []string
	for _, f := range c.VisibleFlags() {
		if same := flagNamed(mount, f.Names()[0]); c != mount && same != nil &&
			same.String() == f.String() {
			shared = append(shared, "**--"+f.Names()[0]+"**")
		} else {
			own = append(own, f)
		}
	}
	text := c.Description
	if before, example, ok := strings.Cut(text, "Example: "); ok {
		example, after, _ := strings.Cut(example, "\n\n")
		text = before + "Example:\n\n    " + strings.ReplaceAll(example, "\n",
			"\n    ") + "\n\n" + after
	}
	usage := "**" + strings.TrimSpace(c.Name+" "+c.ArgsUsage) + "**: " + c.Usage + ".\n\n" + text
	if len(shared) > 0 {
		usage += "\n\nOptions as of a mount: " + strings.Join(shared, ", ") + "."
	}
	c.Usage, c.Flags = usage+"\n", own
}
