package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// commandDoc is what the help of a command says, in parts: the shells' completions and the manual page are made of it,
// so they know each command and option that there is.
type commandDoc struct {
	Name        string // "cat", "cache prune"; "" is the mount itself
	Usage       string // one line
	Args        string // "IMAGE PATH..."
	Text        string // of the description, what comes before the example
	Example     string
	Limitations string
	Options     []optionDoc
	Commands    []string // names of subcommands
}

// optionDoc is one option.
type optionDoc struct {
	Names   []string // as typed: "--json", "-l"
	Value   string   // a name for the value, such as DIR; "" takes none
	Usage   string
	Default string
	Shared  bool // it is explained among the options of a mount
}

// describe lists the mount, then all visible commands in the order of the help.
func describe(app *cli.App) []commandDoc {
	docs := []commandDoc{describeCommand(app.Command("mount"), "")}
	version := optionDoc{Names: []string{"--version", "-V"}, Usage: "print the version"}
	docs[0].Options = append(docs[0].Options, version)
	for _, c := range app.Commands {
		if c.Hidden {
			continue
		}
		docs = append(docs, describeCommand(c, c.Name))
		for _, s := range c.Subcommands {
			docs = append(docs, describeCommand(s, c.Name+" "+s.Name))
		}
	}
	known := make(map[string]string)
	for _, o := range docs[0].Options {
		known[o.Long()] = o.Usage
	}
	for _, d := range docs[1:] {
		for i, o := range d.Options {
			d.Options[i].Shared = known[o.Long()] == o.Usage
		}
	}
	return docs
}

func describeCommand(c *cli.Command, name string) commandDoc {
	doc := commandDoc{Name: name, Usage: c.Usage, Args: c.ArgsUsage}
	text, rest, _ := strings.Cut(c.Description, "Example: ")
	example, limits, _ := strings.Cut(rest, "Limitations: ")
	doc.Text, doc.Example, doc.Limitations = strings.TrimSpace(text), strings.TrimSpace(example), strings.TrimSpace(limits)
	for _, f := range c.VisibleFlags() {
		doc.Options = append(doc.Options, describeOption(f))
	}
	doc.Options = append(doc.Options, optionDoc{Names: []string{"--help", "-h"}, Usage: "show help"})
	for _, s := range c.Subcommands {
		doc.Commands = append(doc.Commands, s.Name)
	}
	return doc
}

func describeOption(f cli.Flag) optionDoc {
	var o optionDoc
	for _, n := range f.Names() {
		if len(n) == 1 {
			o.Names = append(o.Names, "-"+n)
		} else {
			o.Names = append(o.Names, "--"+n)
		}
	}
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return o
	}
	o.Usage = strings.ReplaceAll(d.GetUsage(), "`", "")
	if d.TakesValue() {
		o.Value = "VALUE"
		if parts := strings.Split(d.GetUsage(), "`"); len(parts) == 3 {
			o.Value = parts[1]
		}
		if o.Default = d.GetDefaultText(); o.Default == "" {
			o.Default = d.GetValue()
		}
		o.Default = strings.Trim(o.Default, `"`)
	}
	return o
}

// Long is the option's long name without dashes.
func (o optionDoc) Long() string { return strings.TrimPrefix(o.Names[0], "--") }

// Short is the option's letter, or "".
func (o optionDoc) Short() string {
	if len(o.Names) < 2 {
		return ""
	}
	return strings.TrimPrefix(o.Names[1], "-")
}

// Words is the option's value, where it is one of a few words.
func (o optionDoc) Words() string {
	switch o.Value {
	case "WHAT":
		return "auto none all"
	case "WHEN":
		return "first always never"
	case "LEVEL":
		return "fastest default better best"
	}
	return ""
}

// Places says what each argument of the line is, from the first word behind pfmount: "image", "source" (an image or a
// directory), "dir", "mount" (the mount point of a mount), "shell", or "" for a command's name and for what no shell knows.
func (c commandDoc) Places() []string {
	places := make([]string, len(strings.Fields(c.Name)))
	for _, field := range strings.Fields(c.Args) {
		place := ""
		switch strings.Trim(field, "[]") {
		case "IMAGE", "DEST":
			place = "image"
		case "SOURCE":
			place = "source"
		case "SHELL":
			place = "shell"
		case "MOUNTPOINT":
			if place = "mount"; c.Name == "" {
				place = "dir"
			}
		}
		places = append(places, place)
	}
	return places
}

// Place is what the command's own argument i is, from 0.
func (c commandDoc) Place(i int) string {
	if places := c.Places()[len(strings.Fields(c.Name)):]; i < len(places) {
		return places[i]
	}
	return ""
}

// Within reports whether the command stands inside another: "cache prune".
func (c commandDoc) Within() bool { return strings.Contains(c.Name, " ") }
