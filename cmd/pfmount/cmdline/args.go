package cmdline

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// genericOptions are the options that mount(8), fstab and systemd hand to
// every file system. They change nothing here: a mount is always read-only,
// nosuid and nodev. What asks for less than that (noexec) is an option of ours.
var genericOptions = map[string]bool{
	"ro": true, "rw": true, "dev": true, "nodev": true, "suid": true, "nosuid": true, "exec": true,
	"async": true, "sync": true, "atime": true, "noatime": true, "relatime": true,
	"norelatime": true, "strictatime": true, "diratime": true, "nodiratime": true,
	"lazytime": true, "nolazytime": true,
	"auto": true, "noauto": true, "user": true, "nouser": true, "users": true,
	"owner": true, "group": true,
	"dirsync": true, "mand": true, "nomand": true, "iversion": true, "noiversion": true,
	"_netdev": true, "nofail": true, "defaults": true, "default_permissions": true,
	"silent": true, "loud": true,
}

// Arrange turns what a user may type into what urfave/cli parses: it inserts
// the hidden mount command when the first argument names none, moves options
// before positional arguments, splits -oX and spreads -o a,b=c over long
// options. args[0] is the program.
func Arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 {
		return args, nil
	}
	switch args[1] {
	case "-h", "--help":
		return []string{args[0], "--help"}, nil
	case "-V", "--version":
		return []string{args[0], "--version"}, nil
	case "help":
		return append(append([]string{args[0]}, args[2:]...), "--help"), nil
	}
	cmd, path, rest := find(app, args[1:])
	path = append(args[:1:1], path...)
	options, positionals, err := split(cmd, rest)
	if err != nil {
		return nil, err
	}
	if len(options) == 1 && options[0] == "--version" {
		path = path[:1] // the program's own option
	}
	return append(append(append(path, options...), "--"), positionals...), nil
}

// find returns the command that words name, the words that name it, and those behind: the hidden
// mount command where the first word names none.
func find(app *cli.App, words []string) (cmd *cli.Command, path, rest []string) {
	if len(words) > 0 {
		cmd = app.Command(words[0])
	}
	if cmd == nil {
		return app.Command("mount"), []string{"mount"}, words
	}
	path, rest = []string{words[0]}, words[1:]
	for len(cmd.Subcommands) > 0 && len(rest) > 0 {
		sub := cmd.Command(rest[0])
		if sub == nil {
			break
		}
		cmd, path, rest = sub, append(path, rest[0]), rest[1:]
	}
	return cmd, path, rest
}

// split separates a command's options from its positional arguments.
func split(cmd *cli.Command, args []string) (options, positionals []string, err error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			return options, append(positionals, args[i+1:]...), nil
		case arg == "-h" || arg == "--help":
			return []string{"--help"}, nil, nil
		case arg == "-V" || arg == "--version":
			return []string{"--version"}, nil, nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			positionals = append(positionals, arg)
		case cmd.Name == "mount" && strings.HasPrefix(arg, "-o"):
			list := arg[2:]
			if list == "" {
				if i++; i == len(args) {
					return nil, nil, fault.Usagef("option -o needs a value")
				}
				list = args[i]
			}
			spread, err := spreadOptions(cmd, list)
			if err != nil {
				return nil, nil, err
			}
			options = append(options, spread...)
		default:
			options = append(options, arg)
			if takesValue(cmd, strings.TrimLeft(arg, "-")) {
				if i++; i == len(args) {
					return nil, nil, fault.Usagef("option %s needs a value", arg)
				}
				options = append(options, args[i])
			}
		}
	}
	return options, positionals, nil
}

// spreadOptions maps "a,b=c" to "--a", "--b=c"; "\," is a comma in a value.
func spreadOptions(cmd *cli.Command, list string) ([]string, error) {
	var out []string
	for _, opt := range splitEscaped(list) {
		name, value, valued := strings.Cut(opt, "=")
		if opt == "" || genericOptions[name] || strings.HasPrefix(strings.ToLower(name), "x-") ||
			name == "comment" {
			continue
		}
		name = strings.ReplaceAll(name, "_", "-")
		f := flagNamed(cmd, name)
		if f == nil || !isVisible(f) {
			return nil, fault.Usagef("unknown mount option %q", opt)
		}
		if needs := flagTakesValue(f); needs != valued {
			if needs {
				return nil, fault.Usagef("mount option %q needs a value", name)
			}
			return nil, fault.Usagef("mount option %q takes no value", name)
		}
		if valued {
			out = append(out, "--"+name+"="+value)
		} else {
			out = append(out, "--"+name)
		}
	}
	return out, nil
}

func splitEscaped(list string) []string {
	var out []string
	var b strings.Builder
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\' && i+1 < len(list) && (list[i+1] == ',' || list[i+1] == '\\'):
			i++
			b.WriteByte(list[i])
		case list[i] == ',':
			out = append(out, b.String())
			b.Reset()
		default:
			b.WriteByte(list[i])
		}
	}
	return append(out, b.String())
}

func takesValue(cmd *cli.Command, name string) bool {
	if strings.Contains(name, "=") {
		return false
	}
	f := flagNamed(cmd, name)
	return f != nil && flagTakesValue(f)
}

func flagNamed(cmd *cli.Command, name string) cli.Flag {
	for _, f := range cmd.Flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

func isVisible(f cli.Flag) bool {
	v, ok := f.(cli.VisibleFlag)
	return ok && v.IsVisible()
}

func flagTakesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
