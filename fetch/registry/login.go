package registry

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/pfmount/pfmount/fetch/registry/cred"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// loginError is a login that cannot be made. Its text holds no secret.
type loginError struct{ text string }

func (e *loginError) Error() string { return e.text + ": " + ErrDenied.Error() }
func (e *loginError) Unwrap() error { return ErrDenied }

// denied makes a login that cannot be read a loginError.
func denied(err error) error {
	var unreadable *cred.Error
	if errors.As(err, &unreadable) {
		return &loginError{unreadable.Error()}
	}
	return err
}

// login is what one endpoint may be told about the user: what the caller gave, if the endpoint is
// the image's own registry, else what the login files say of it.
type login struct {
	host  string // host[:port] of the endpoint; no other host is told anything
	given cred.Given
	files []string  // login files, first one first
	keys  cred.Keys // what the endpoint and the repository are called there
	warn  func(string)

	tokens *tokenCache

	mu   sync.Mutex // guards used
	used usedLogin
}

// usedLogin is what was last told to an endpoint, for messages; never a secret.
type usedLogin struct {
	source string // "": nothing
	why    string // why nothing, when there is something to say
}

// newLogin returns the login of the endpoint that answers for a repository's registry, its own host
// (own), or of a mirror, which is never told what was given for the registry.
func newLogin(host, repo string, own bool, o Options, warn func(string)) (*login, error) {
	l := &login{
		host: host, files: cred.Files(o.Login.Getenv), keys: cred.Names(host, repo), warn: warn,
		tokens: newTokenCache(),
	}
	l.tokens.login = func(ctx context.Context) (auth.Credential, error) {
		return l.credential(ctx, host)
	}
	if !own {
		return l, nil
	}
	var err error
	l.given, err = cred.FromEnvironment(o.Login)
	if l.given.Source != "" {
		l.used.source = l.given.Source
	}
	return l, denied(err)
}

// anonymousKey marks the context of requests that must not carry credentials.
type anonymousKey struct{}

func anonymous(ctx context.Context) bool { return ctx.Value(anonymousKey{}) != nil }

// credential is auth.Client's view of the login. It is asked again for each new token, and reads
// the files again then.
func (l *login) credential(ctx context.Context, hostport string) (auth.Credential, error) {
	if hostport != l.host || anonymous(ctx) || l.given.Bearer != "" {
		return auth.EmptyCredential, nil
	}
	if l.given.User != "" {
		cred := auth.Credential{Username: l.given.User, Password: l.given.Password}
		tokenNoteOf(ctx).uses(cred, l.given.Source)
		return cred, nil
	}
	found, err := cred.Find(ctx, l.files, l.keys)
	if ctx.Err() != nil {
		return auth.EmptyCredential, context.Cause(ctx)
	}
	if err != nil {
		return auth.EmptyCredential, denied(err)
	}
	for _, problem := range found.Problems {
		l.warn(problem)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = usedLogin{source: found.Source, why: strings.Join(found.Problems, "; ")}
	tokenNoteOf(ctx).uses(found.Cred, found.Source)
	return found.Cred, nil
}

// sign puts a bearer token on a request to the registry. auth.Client would wait for a challenge
// first, and some registries send none.
func (l *login) sign(req *http.Request) {
	if l.given.Bearer != "" && req.URL.Host == l.host && !anonymous(req.Context()) {
		req.Header.Set("Authorization", "Bearer "+l.given.Bearer)
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

// explain says in an error which credentials were used, never what they are, and what to do about
// it.
func (l *login) explain(ctx context.Context, code int) string {
	if anonymous(ctx) {
		return "asked without credentials, since the registry speaks plain HTTP; " +
			"--plain-http allows them"
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
			return text + "; it may be wrong, have expired, or lack the right " +
				"to this repository: log in again"
		case http.StatusForbidden:
			return text + "; it may lack the right to do this in this repository"
		}
		return text + "; check the name and the tag, and whether it may see this repository"
	}
	why := used.why
	if why == "" {
		why = l.given.Half
	}
	if why == "" {
		why = "none were found for " + clip(l.host, 255)
	}
	text := "asked with no credentials (" + why + "); "
	if code == http.StatusNotFound {
		return text + "check the name and the tag; an image that is private needs a login"
	}
	return text + "log in with docker login or podman login, " +
		"or set OCI_USERNAME and OCI_PASSWORD, or OCI_BEARER"
}
