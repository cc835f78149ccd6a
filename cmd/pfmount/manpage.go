package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// manpageCommand prints pfmount(1), for make install.
func manpageCommand() *cli.Command {
	return &cli.Command{
		Name:   "manpage",
		Hidden: true,
		Usage:  "print the manual page pfmount(1)",
		Description: `Prints the page as roff.

Example: pfmount manpage | man -l -

Limitations: none.`,
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("unexpected argument %q", c.Args().First())
			}
			return render(c.App.Writer, "pfmount.1", describe(newApp()))
		},
	}
}

// roff quotes plain text for a manual page: dashes that can be pasted, nothing that looks like a request.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}
