package cred

import (
	"strings"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// Given is a login that was given by the environment or on the command line.
type Given struct {
	Bearer, User, Password string

	Source string // where it comes from, for messages
	Half   string // what is missing to make a login, for messages
}

// FromEnvironment reads the reference tool's variables, then the options: OCI_BEARER, else
// OCI_USERNAME with OCI_PASSWORD, else the user and the password of o.
func FromEnvironment(o Options) (Given, error) {
	if token := o.Getenv("OCI_BEARER"); token != "" {
		if !IsToken68(token) {
			return Given{}, &Error{"OCI_BEARER: it holds characters that no token has"}
		}
		return Given{Bearer: token, Source: "the token in OCI_BEARER"}, nil
	}
	user, password := o.Getenv("OCI_USERNAME"), o.Getenv("OCI_PASSWORD")
	switch {
	case user != "" && password != "":
		source := "the user " + safetext.Clip(user, 100) + " of OCI_USERNAME"
		return Given{User: user, Password: password, Source: source}, nil
	case o.Username != "":
		source := "the user " + safetext.Clip(o.Username, 100) + " of --username"
		return Given{User: o.Username, Password: o.Password, Source: source}, nil
	case user != "":
		return Given{Half: "OCI_USERNAME is set, OCI_PASSWORD is not"}, nil
	case password != "":
		return Given{Half: "OCI_PASSWORD is set, OCI_USERNAME is not"}, nil
	}
	return Given{}, nil
}

// IsToken68 says that a token can be sent: visible ASCII.
func IsToken68(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// Options say where credentials come from.
type Options struct {
	// Getenv is asked for OCI_BEARER and other logins, and where login files are; nil: os.Getenv.
	Getenv func(string) string
	// Username is for the image's own registry, unless OCI_BEARER or OCI_USERNAME is set; "": none.
	Username string
	Password string // of Username
}

// Error is a login that cannot be read. Its text holds no secret.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }
