package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/pfmount/pfmount/cmd/pfmount/fault"
	"github.com/pfmount/pfmount/fetch/ref"
)

// loginFlags are the login for the image's own registry. A password is never an argument: every
// user of the machine can read those.
func loginFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name:  "username",
			Usage: "log in to the image's registry as `USER`, with --password-stdin",
		},
		&cli.BoolFlag{Name: "password-stdin", Usage: "read the password from standard input"},
	}
}

// loginHelp says where else logins come from.
const loginHelp = `LOGGING IN, the first that is there:
   OCI_BEARER; OCI_USERNAME and OCI_PASSWORD; --username and --password-stdin;
   what docker login and podman login wrote: $REGISTRY_AUTH_FILE,
   $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json,
   $DOCKER_CONFIG/config.json, ~/.docker/config.json, with credential helpers.
`

// readLogin returns user and password for a registry, empty when none are given.
func readLogin(c *cli.Context, imageRef ref.Ref) (user, password string, err error) {
	user = c.String("username")
	switch {
	case user == "" && !c.Bool("password-stdin"):
		return "", "", nil
	case user == "":
		return "", "", fault.Usagef("--password-stdin needs --username USER")
	case !c.Bool("password-stdin"):
		return "", "", fault.Usagef("--username needs --password-stdin, and the password there")
	case strings.Contains(user, ":"):
		return "", "", fault.Usagef("--username: a user's name has no ':'")
	case imageRef.Kind() != ref.Registry:
		return "", "", nil
	}
	password, err = stdinPassword()
	return user, password, err
}

// maxPassword is far above any real password or token, in bytes.
const maxPassword = 32 << 10

// stdinPassword reads the password, once for all that ask.
var stdinPassword = sync.OnceValues(func() (string, error) {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		return "", fault.Usagef("--password-stdin: standard input is a terminal; " +
			"pipe the password into it")
	}
	raw, err := io.ReadAll(io.LimitReader(os.Stdin, maxPassword+1))
	if err != nil {
		return "", fault.Usagef("--password-stdin: standard input cannot be read: %v", err)
	}
	if len(raw) > maxPassword {
		return "", fault.Usagef("--password-stdin: more than %d bytes are there", maxPassword)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if password == "" {
		return "", fault.Usagef("--password-stdin: standard input is empty")
	}
	return password, nil
})

// childStdin is what the background process finds on its standard input: the password, if there is
// one.
func childStdin(password string) io.Reader {
	if password == "" {
		return nil // /dev/null
	}
	return bytes.NewReader([]byte(password + "\n"))
}
