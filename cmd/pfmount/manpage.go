package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/cmdline"
	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// What the manual page says beside commands and options: the description in Markdown, as the cli
// library has it, and sections for its end in roff.
var (
	//go:embed manual/description.md
	manualDescription string
	//go:embed manual/sections.1
	manualSections string
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
				return fault.Usagef("unexpected argument %q", c.Args().First())
			}
			page, err := manual()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.App.Writer, page)
			return err
		},
	}
}

// manual returns pfmount(1) as roff.
func manual() (string, error) {
	app := newApp()
	app.Description = manualDescription
	page, err := cmdline.Manual(app)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(page + "\n.SH EXIT STATUS\n")
	for _, e := range exitMeanings {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", e.Code, e.Means)
	}
	b.WriteString(manualSections)
	return b.String(), nil
}
