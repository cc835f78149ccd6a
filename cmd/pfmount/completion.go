package main

import (
	"embed"
	"io"
	"strings"
	"text/template"

	"github.com/urfave/cli/v2"
)

// The scripts are made of the table of commands (describe) and stand on their own: to complete a word, no shell starts
// this program, so nothing waits and nothing goes to the network.
//
//go:embed templates
var templates embed.FS

// shells are the shells that completion knows.
var shells = []string{"bash", "zsh", "fish"}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell: bash, zsh, fish",
		ArgsUsage: "SHELL",
		Description: `The script completes commands, options, folders and the mount points of mounts;
make install puts it where the shell looks for it.

Example: source <(pfmount completion bash)

Limitations: names of images in registries are not completed, since that would
ask the network.`,
		Action: func(c *cli.Context) error {
			shell, err := oneArg(c, "SHELL")
			if err != nil {
				return err
			}
			for _, known := range shells {
				if shell == known {
					return render(c.App.Writer, "pfmount."+shell, describe(newApp()))
				}
			}
			return usagef("no completion for %q, only for %s", shell, strings.Join(shells, ", "))
		},
	}
}

// render writes one of the templates, filled with the commands.
func render(w io.Writer, name string, docs []commandDoc) error {
	t, err := template.New(name).Funcs(template.FuncMap{
		"quote": shellWord, "zsh": zshText, "roff": roff, "join": strings.Join, "sentence": sentence,
		"exits":   func() []exitMeaning { return exitMeanings },
		"version": func() string { return version },
	}).ParseFS(templates, "templates/"+name)
	if err != nil {
		return err
	}
	return t.Execute(w, docs)
}

// sentence makes the first letter a capital.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// shellWord quotes a word for every shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// zshText quotes an explanation inside a quoted argument of zsh's _arguments.
func zshText(s string) string {
	return strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`, "'", `'\''`).Replace(s)
}
