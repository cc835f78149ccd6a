package cmdline

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
)

// mount(8), and so fstab and systemd, hands types that it does not know to a program named
// mount.TYPE. Under such a name (make install links mount.pfmount and mount.fuse.pfmount) the
// command line is mount(8)'s:
//
//	mount.TYPE IMAGE DIR [-sfnv] [-N namespace] [-o options] [-t type.subtype]

// IsMountHelper reports whether the program was called as mount(8) calls it.
func IsMountHelper(program string) bool {
	return strings.HasPrefix(filepath.Base(program), "mount.")
}

// helperCall is the command line of mount(8).
type helperCall struct {
	options     []string // the -o lists, in order
	positionals []string
	namespace   string // of -N
	fake        bool   // check everything, mount nothing
	page        string // --help or --version, if asked for
}

// ArrangeHelper turns mount(8)'s command line into what urfave/cli parses.
func ArrangeHelper(app *cli.App, args []string) ([]string, error) {
	call, err := parseHelper(args[1:])
	if err != nil {
		return nil, err
	}
	switch call.page {
	case "--help":
		return []string{args[0], "mount", "--help"}, nil
	case "--version":
		return []string{args[0], "--version"}, nil
	}
	if call.namespace != "" {
		return nil, runInNamespace(call.namespace, args[0], call.arguments())
	}
	out, mount := []string{args[0], "mount"}, app.Command("mount")
	if call.fake {
		out = append(out, "--fake")
	}
	for _, list := range call.options {
		spread, err := spreadOptions(mount, list)
		if err != nil {
			return nil, err
		}
		for _, o := range spread {
			if o == "--foreground" || o == "--f" {
				return nil, fault.Usagef("mount option %q: mount(8) waits for the end of a mount "+
					"in the foreground", strings.Trim(o, "-"))
			}
		}
		out = append(out, spread...)
	}
	return append(append(out, "--"), call.positionals...), nil
}

// parseHelper reads mount(8)'s command line.
func parseHelper(args []string) (*helperCall, error) {
	c := new(helperCall)
	for len(args) > 0 && c.page == "" {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--help" || arg == "--version":
			c.page = arg
		case arg == "--":
			c.positionals, args = append(c.positionals, args...), nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			c.positionals = append(c.positionals, arg)
		default:
			var err error
			if args, err = c.letters(arg[1:], args); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// letters reads the options of one argument, such as sfnv, and returns what is left of the
// arguments behind it.
func (c *helperCall) letters(letters string, rest []string) ([]string, error) {
	for i, letter := range letters {
		switch letter {
		case 'f':
			c.fake = true
		case 's', 'n', 'v': // sloppy, no mtab, verbose: nothing here depends on them
		case 'h':
			c.page = "--help"
		case 'V':
			c.page = "--version"
		case 'o', 'N', 't':
			value := letters[i+1:]
			if value == "" {
				if len(rest) == 0 {
					return nil, fault.Usagef("option -%c needs a value", letter)
				}
				value, rest = rest[0], rest[1:]
			}
			switch letter {
			case 'o':
				c.options = append(c.options, value)
			case 'N':
				c.namespace = value
			} // -t type.subtype can only be ours
			return rest, nil
		default:
			return nil, fault.Usagef("unknown option -%c: mount(8)'s helper takes "+
				"IMAGE DIR [-sfnv] [-N namespace] [-o options]", letter)
		}
	}
	return rest, nil
}

// arguments is the call without its namespace.
func (c *helperCall) arguments() []string {
	var out []string
	if c.fake {
		out = append(out, "-f")
	}
	for _, list := range c.options {
		out = append(out, "-o", list)
	}
	return append(append(out, "--"), c.positionals...)
}

// runInNamespace starts this program over in another mount namespace, a file or the number of a
// process there, as -N asks: mount(8) leaves the change to its helper. It returns only when that
// fails.
func runInNamespace(namespace, program string, args []string) error {
	if _, err := strconv.Atoi(namespace); err == nil {
		namespace = "/proc/" + namespace + "/ns/mnt"
	}
	f, err := os.Open(namespace)
	if err != nil {
		return fault.Mountf("option -N: %w", err)
	}
	// A thread that shares its working folder with others may not change; exec makes it the only
	// one.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fault.Mountf("option -N: unshare: %w", err)
	}
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNS); err != nil {
		return fault.Mountf("option -N: %s: %w", namespace, err)
	}
	return fault.Mountf("option -N: %w",
		syscall.Exec("/proc/self/exe", append([]string{program}, args...), os.Environ()))
}
