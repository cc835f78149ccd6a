package fetch

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// loginError is a login that cannot be made. Its text holds no secret.
type loginError struct{ text string }

func (e *loginError) Error() string { return e.text + ": " + ErrDenied.Error() }
func (e *loginError) Unwrap() error { return ErrDenied }

// login is what one endpoint may be told about the user: what the caller gave, if the endpoint is the image's own
// registry, else what the login files say of it.
type login struct {
	host  string // host[:port] of the endpoint; nobody else is told anything
	given given
	files []string // login files, first one first
	keys  credKeys // what the endpoint and the repository are called there
	warn  func(string)

	tokens *tokenCache

	mu   sync.Mutex // guards used
	used usedLogin
}

// given is a login that was given by the environment or on the command line.
type given struct {
	bearer, user, password string

	source string // where it comes from, for messages
	half   string // what is missing to make a login, for messages
}

// usedLogin is what was last told to an endpoint, for messages; never a secret.
type usedLogin struct {
	source string // "": nothing
	why    string // why nothing, when there is something to say
}

// newLogin returns the login of the endpoint that answers for a repository's registry, its own host (own), or of a
// mirror, which is never told what was given for the registry.
func newLogin(host, repo string, own bool, o RegistryOptions, warn func(string)) (*login, error) {
	l := &login{
		host: host, files: credFiles(o.Login.Getenv), keys: credNames(host, repo), warn: warn,
		tokens: newTokenCache(),
	}
	l.tokens.login = func(ctx context.Context) (auth.Credential, error) {
		return l.credential(ctx, host)
	}
	if !own {
		return l, nil
	}
	var err error
	l.given, err = givenLogin(o)
	if l.given.source != "" {
		l.used.source = l.given.source
	}
	return l, err
}

// givenLogin reads the reference tool's variables, then the options: OCI_BEARER, else OCI_USERNAME with OCI_PASSWORD,
// else Options.Username with Options.Password.
func givenLogin(o RegistryOptions) (given, error) {
	if token := o.Login.Getenv("OCI_BEARER"); token != "" {
		if !isToken68(token) {
			return given{}, &loginError{"OCI_BEARER: it holds characters that no token has"}
		}
		return given{bearer: token, source: "the token in OCI_BEARER"}, nil
	}
	user, password := o.Login.Getenv("OCI_USERNAME"), o.Login.Getenv("OCI_PASSWORD")
	switch {
	case user != "" && password != "":
		return given{user: user, password: password, source: "the user " + clip(user, 100) + " of OCI_USERNAME"}, nil
	case o.Login.Username != "":
		return given{user: o.Login.Username, password: o.Login.Password, source: "the user " + clip(o.Login.Username, 100) + " of --username"}, nil
	case user != "":
		return given{half: "OCI_USERNAME is set, OCI_PASSWORD is not"}, nil
	case password != "":
		return given{half: "OCI_PASSWORD is set, OCI_USERNAME is not"}, nil
	}
	return given{}, nil
}

// isToken68 says that a token can be sent: visible ASCII.
func isToken68(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
}

// anonymousKey marks the context of requests that must not carry credentials.
type anonymousKey struct{}

func anonymous(ctx context.Context) bool { return ctx.Value(anonymousKey{}) != nil }

// credential is auth.Client's view of the login. It is asked again for each new token, and reads the files again then.
func (l *login) credential(ctx context.Context, hostport string) (auth.Credential, error) {
	if hostport != l.host || anonymous(ctx) || l.given.bearer != "" {
		return auth.EmptyCredential, nil
	}
	if l.given.user != "" {
		cred := auth.Credential{Username: l.given.user, Password: l.given.password}
		tokenNoteOf(ctx).uses(cred, l.given.source)
		return cred, nil
	}
	found, err := findCred(ctx, l.files, l.keys)
	if ctx.Err() != nil {
		return auth.EmptyCredential, context.Cause(ctx)
	}
	if err != nil {
		return auth.EmptyCredential, err
	}
	for _, problem := range found.problems {
		l.warn(problem)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = usedLogin{source: found.source, why: strings.Join(found.problems, "; ")}
	tokenNoteOf(ctx).uses(found.cred, found.source)
	return found.cred, nil
}

// sign puts a bearer token on a request to the registry. auth.Client would wait for a challenge first, and some
// registries send none.
func (l *login) sign(req *http.Request) {
	if l.given.bearer != "" && req.URL.Host == l.host && !anonymous(req.Context()) {
		req.Header.Set("Authorization", "Bearer "+l.given.bearer)
	}
}

// describe says which credentials the endpoint may be told, and where they come from; "" for none.
func (l *login) describe(ctx context.Context) (string, error) {
	if _, err := l.credential(ctx, l.host); err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used.source, nil
}

// explain says in an error which credentials were used, never what they are, and what to do about it.
func (l *login) explain(ctx context.Context, code int) string {
	if anonymous(ctx) {
		return "asked without credentials, since the registry speaks plain HTTP; --plain-http allows them"
	}
	l.mu.Lock()
	used := l.used
	l.mu.Unlock()
	if a := attemptOf(ctx); a.source != "" && tokenNoteOf(ctx) == nil {
		used.source = a.source // its source may say something else by now
	}
	if used.source != "" {
		text := "asked with " + used.source
		switch code {
		case http.StatusUnauthorized, http.StatusBadRequest:
			return text + "; it may be wrong, have expired, or lack the right to this repository: log in again"
		case http.StatusForbidden:
			return text + "; it may lack the right to do this in this repository"
		}
		return text + "; check the name and the tag, and whether it may see this repository"
	}
	why := used.why
	if why == "" {
		why = l.given.half
	}
	if why == "" {
		why = "none were found for " + clip(l.host, 255)
	}
	text := "asked with no credentials (" + why + "); "
	if code == http.StatusNotFound {
		return text + "check the name and the tag; an image that is private needs a login"
	}
	return text + "log in with docker login or podman login, or set OCI_USERNAME and OCI_PASSWORD, or OCI_BEARER"
}
