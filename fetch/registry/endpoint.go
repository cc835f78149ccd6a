package registry

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"

	"github.com/pfmount/pfmount/fetch/ref"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// endpoint is one place that answers for a registry: the registry itself or, where the
// administrator says so, a mirror.
type endpoint struct {
	host   string            // host[:port]
	path   string            // of its API: "/v2" as a rule
	can    capability        // what it may be asked for
	ns     string            // mirrors: the registry to answer for, sent as ?ns=; "": no mirror
	header http.Header       // sent to exactly this scheme, host and port
	open   bool              // its certificate is not checked: as good as plain HTTP
	named  bool              // hosts.toml says its scheme
	secure bool              // certificates were given for it, so it speaks TLS
	base   http.RoundTripper // with its certificates and time-outs; nil: what all others have
	auth   *auth.Client
	login  *login
	endpointState
}

// endpointState is what was learnt of an endpoint.
type endpointState struct {
	mu     sync.Mutex // guards the fields below
	scheme string     // "" until it is known
	down   bool       // it failed last time, and that was said
	noCert string     // why it was shown no client certificate; "": it has answered since
}

// capability is what an endpoint may be asked for.
type capability uint8

// The capabilities of hosts.toml.
const (
	canPull    capability = 1 << iota // things by their digest
	canResolve                        // tags
	canPush
	canAll = canPull | canResolve | canPush
)

// ownEndpoint is the registry itself, of which only the name is known.
func ownEndpoint(api string) *endpoint { return &endpoint{host: api, path: "/v2", can: canAll} }

func (e *endpoint) mirror() bool { return e.ns != "" }

// url is where path of a repository is.
func (e *endpoint) url(scheme, repo, path string) url.URL {
	u := url.URL{Scheme: scheme, Host: e.host, Path: e.path + "/" + repo + "/" + path}
	if e.mirror() {
		u.RawQuery = "ns=" + url.QueryEscape(e.ns)
	}
	return u
}

// knownScheme returns the scheme, "" while it is not known.
func (e *endpoint) knownScheme() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.scheme
}

// pickScheme settles the scheme of an endpoint for which hosts.toml names none. No answer moves
// an endpoint from HTTPS to HTTP: plain HTTP is for --plain-http and for loopback, where the
// scheme stays open until the first answer.
func (e *endpoint) pickScheme(plain bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, port := ref.SplitHost(e.host)
	switch {
	case e.scheme != "":
	case ref.IsLoopback(e.host) && !e.secure && (plain || port != "443"):
	case plain:
		e.scheme = "http"
	default:
		e.scheme = "https"
	}
}

// keepScheme keeps the scheme that got an HTTP answer. What was HTTPS stays so.
func (e *endpoint) keepScheme(scheme string, err error) {
	var status *statusError
	if err == nil || errors.As(err, &status) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.scheme == "" {
			e.scheme = scheme
		}
	}
}

// heard notes an answer, whatever it says: one over TLS settles the scheme for good.
func (e *endpoint) heard(req *http.Request) {
	if req.URL.Scheme == "https" && req.URL.Host == e.host {
		e.keepScheme("https", nil)
	}
}

// plainHint says what allows plain HTTP to host, "" when that is not this endpoint.
func (e *endpoint) plainHint(host string) string {
	switch {
	case host != e.host:
		return ""
	case e.named:
		return "; a hosts.toml that names it with http:// allows that"
	}
	return "; --plain-http allows that"
}

// noteNoCert notes that a server asked for a client certificate and was shown none, or with "" that
// it answers.
func (e *endpoint) noteNoCert(why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.noCert = why
}

// lackOfCert is what noteNoCert noted.
func (e *endpoint) lackOfCert() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.noCert
}

// note logs that a mirror fails, and that it answers again, once each.
func (e *endpoint) note(log *slog.Logger, err error) {
	var status *statusError
	missing := errors.As(err, &status) && status.code == http.StatusNotFound
	failed := err != nil && !missing
	e.mu.Lock()
	changed := failed != e.down
	e.down = failed
	e.mu.Unlock()
	switch {
	case changed && failed:
		log.Warn("a mirror fails, the next host is asked", "mirror", e.host, "cause", err)
	case changed:
		log.Info("a mirror answers again", "mirror", e.host)
	case err != nil:
		log.Debug("the next host is asked", "mirror", e.host, "cause", err)
	}
}

// asked is what a request's context knows: its endpoint, and whether another could be asked.
type asked struct {
	of   *endpoint
	more bool
}

type askedKey struct{}

func ask(ctx context.Context, of *endpoint, more bool) context.Context {
	return context.WithValue(ctx, askedKey{}, asked{of, more})
}

// askedOf returns what a context knows. Token requests and redirects have it from the request that
// led to them.
func askedOf(ctx context.Context) asked {
	a, ok := ctx.Value(askedKey{}).(asked)
	if !ok {
		a.of = &endpoint{path: "/v2"}
	}
	return a
}

// same says that two endpoints are one place.
func (e *endpoint) same(other *endpoint) bool {
	a, b := e.knownScheme(), other.knownScheme()
	return (a == b || a == "" || b == "") && e.host == other.host && e.path == other.path
}
