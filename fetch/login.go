package fetch

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// login is what a registry may be told about the user. It goes to the image's own registry only.
type login struct {
	registry string // host[:port] that the credentials are for
	bearer   string
	user     string
	password string
	source   string // where they come from, for messages
}

// loginFromEnv reads the reference tool's variables: OCI_BEARER, else OCI_USERNAME with OCI_PASSWORD, else none.
func loginFromEnv(getenv func(string) string, registry string) (login, error) {
	l := login{registry: registry}
	if l.bearer = getenv("OCI_BEARER"); l.bearer != "" {
		l.source = "the token in OCI_BEARER"
		if strings.IndexFunc(l.bearer, func(r rune) bool { return r <= ' ' || r >= 0x7f }) >= 0 {
			return login{}, fmt.Errorf("OCI_BEARER: it holds characters that no token has: %w", ErrDenied)
		}
		return l, nil
	}
	user, password := getenv("OCI_USERNAME"), getenv("OCI_PASSWORD")
	switch {
	case user != "" && password != "":
		l.user, l.password, l.source = user, password, "the user "+clip(user, 100)+" of OCI_USERNAME"
	case user != "":
		l.source = "no credentials (OCI_USERNAME is set, OCI_PASSWORD is not)"
	case password != "":
		l.source = "no credentials (OCI_PASSWORD is set, OCI_USERNAME is not)"
	default:
		l.source = "no credentials (OCI_USERNAME with OCI_PASSWORD, or OCI_BEARER, give some)"
	}
	return l, nil
}

// anonymousKey marks the context of requests that must not carry credentials.
type anonymousKey struct{}

func anonymous(ctx context.Context) bool { return ctx.Value(anonymousKey{}) != nil }

// credential is auth.Client's view of the login.
func (l login) credential(ctx context.Context, hostport string) (auth.Credential, error) {
	if hostport != l.registry || anonymous(ctx) || l.user == "" {
		return auth.EmptyCredential, nil
	}
	return auth.Credential{Username: l.user, Password: l.password}, nil
}

// sign puts a bearer token on a request to the registry. auth.Client would wait for a challenge first, and some
// registries send none.
func (l login) sign(req *http.Request) {
	if l.bearer != "" && req.URL.Host == l.registry && !anonymous(req.Context()) {
		req.Header.Set("Authorization", "Bearer "+l.bearer)
	}
}

// describe says in an error which credentials were used, never what they are.
func (l login) describe(ctx context.Context) string {
	if anonymous(ctx) {
		return "asked without credentials, since the registry speaks plain HTTP; --plain-http allows them"
	}
	return "asked with " + l.source
}
