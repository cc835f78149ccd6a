package cmdline

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// OnUsageError replaces urfave/cli's habit of printing the whole help.
func OnUsageError(c *cli.Context, err error, _ bool) error {
	return fault.Usagef("%v (see pfmount %s--help)", err, commandPrefix(c))
}

func commandPrefix(c *cli.Context) string {
	if c.Command == nil || c.Command.Name == "" || c.Command.Name == "pfmount" ||
		c.Command.Name == "mount" {
		return ""
	}
	return strings.TrimPrefix(c.Command.HelpName, c.App.HelpName+" ") + " "
}

// OneArg returns a command's only positional argument, or says that it is
// missing.
func OneArg(c *cli.Context, name string) (string, error) {
	if c.NArg() < 1 {
		return "", fault.Usagef("no %s given (see pfmount %s--help)", name, commandPrefix(c))
	}
	if c.NArg() > 1 {
		return "", fault.Usagef("unexpected argument %q (see pfmount %s--help)", c.Args().Get(1),
			commandPrefix(c))
	}
	return c.Args().First(), nil
}

// TwoArgs returns a command's two positional arguments, or says which is missing.
func TwoArgs(c *cli.Context, first, second string) (string, string, error) {
	switch c.NArg() {
	case 0:
		return "", "", fault.Usagef("no %s given (see pfmount %s--help)", first, commandPrefix(c))
	case 1:
		return "", "", fault.Usagef("no %s given (see pfmount %s--help)", second, commandPrefix(c))
	case 2:
		return c.Args().Get(0), c.Args().Get(1), nil
	}
	return "", "", fault.Usagef("unexpected argument %q (see pfmount %s--help)", c.Args().Get(2),
		commandPrefix(c))
}
