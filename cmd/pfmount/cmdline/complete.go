package cmdline

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode"

	"github.com/urfave/cli/v2"
)

// scripts ask the program itself: its words so far, and completeFlag behind them. Where it has no
// answer they complete names of files.
//
//go:embed scripts
var scripts embed.FS

// Script returns the completion script of a shell; fs.ErrNotExist when there is none.
func Script(shell string) ([]byte, error) {
	return fs.ReadFile(scripts, "scripts/pfmount."+shell)
}

// completeFlag is the cli library's last word of a command line that asks for completions.
const completeFlag = "--generate-bash-completion"

// Candidates returns what may stand in a place of the command line where word was begun. c has the
// command and its options.
type Candidates func(c *cli.Context, word string) []string

// Complete turns a command line that asks for completions into what urfave/cli parses: the command
// prints the candidates for the last word and does nothing else. It reports whether args ask.
// places has the candidates by the name of an argument or of an option's value, such as IMAGE.
func Complete(app *cli.App, args []string, places map[string]Candidates) ([]string, bool) {
	n := len(args) - 1
	if n < 2 || args[n] != completeFlag {
		return nil, false
	}
	app.EnableBashCompletion = true
	w := word{text: args[n-1], places: places}
	var path, rest []string
	w.command, path, rest = find(app, args[1:n-1])
	options, positionals, err := split(w.command, rest)
	if err != nil && len(rest) > 0 {
		last := rest[len(rest)-1]
		if last == "-o" || takesValue(w.command, strings.TrimLeft(last, "-")) {
			w.option = last
			options, positionals, _ = split(w.command, rest[:len(rest)-1])
		}
	}
	if slices.Contains(options, "--") {
		options = nil // the library would take what follows for arguments, and run the command
	}
	w.arguments = len(positionals)
	switch {
	case n == 2:
		w.commands = app.Commands
	case w.arguments == 0:
		w.commands = w.command.Subcommands
	}
	w.command.BashComplete = w.print
	return slices.Concat(args[:1], path, options, []string{completeFlag}), true
}

// word is a word that is completed, with the place where it stands.
type word struct {
	text      string
	command   *cli.Command
	commands  []*cli.Command // that the word may name
	option    string         // of which the word is the value, "" for none
	arguments int            // of the command, before the word
	places    map[string]Candidates
}

// print writes the candidates that begin with the word, one a line.
func (w word) print(c *cli.Context) {
	for _, s := range w.candidates(c) {
		unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
		if strings.HasPrefix(s, w.text) && !strings.ContainsFunc(s, unprintable) {
			fmt.Fprintln(c.App.Writer, s)
		}
	}
}

func (w word) candidates(c *cli.Context) []string {
	mount := w.command.Name == "mount"
	option, value, valued := strings.Cut(w.text, "=")
	switch {
	case w.option == "-o":
		return w.list(w.text)
	case w.option != "":
		return w.values(c, w.option, w.text)
	case mount && strings.HasPrefix(w.text, "-o"):
		return prefixed("-o", w.list(w.text[2:]))
	case strings.HasPrefix(w.text, "--") && valued:
		return prefixed(option+"=", w.values(c, option, value))
	case strings.HasPrefix(w.text, "-"):
		return w.options()
	}
	var found []string
	for _, command := range w.commands {
		if !command.Hidden {
			found = append(found, command.Name)
		}
	}
	if fields := strings.Fields(w.command.ArgsUsage); w.arguments < len(fields) {
		found = append(found, w.place(c, strings.Trim(fields[w.arguments], "[]."), w.text)...)
	}
	return found
}

// place returns the candidates for a place by its name.
func (w word) place(c *cli.Context, name, text string) []string {
	if of := w.places[name]; of != nil {
		return of(c, text)
	}
	return nil
}

// values returns the candidates for the value of an option.
func (w word) values(c *cli.Context, option, text string) []string {
	f, ok := flagNamed(w.command, strings.TrimLeft(option, "-")).(cli.DocGenerationFlag)
	if !ok {
		return nil
	}
	if parts := strings.Split(f.GetUsage(), "`"); len(parts) == 3 {
		return w.place(c, parts[1], text)
	}
	return nil
}

// list returns the candidates for the last option of a list such as noexec,allow.
func (w word) list(text string) (found []string) {
	before := text[:strings.LastIndex(text, ",")+1]
	for _, f := range w.command.VisibleFlags() {
		name := f.Names()[0]
		if flagTakesValue(f) {
			name += "="
		}
		if name != "foreground" {
			found = append(found, before+name)
		}
	}
	return found
}

// options returns the names of the command's options.
func (w word) options() []string {
	found := []string{"--help", "-h", "--version", "-V"}
	for _, f := range w.command.VisibleFlags() {
		for _, name := range f.Names() {
			found = append(found, "--"[:min(len(name), 2)]+name)
		}
	}
	return found
}

func prefixed(prefix string, words []string) (all []string) {
	for _, s := range words {
		all = append(all, prefix+s)
	}
	return all
}
