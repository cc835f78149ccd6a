package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/pfmount/pfmount/fetch/ref"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// client speaks to one registry, or to the hosts that answer for it. It finds out which scheme
// loopback speaks, logs in, turns what is no success into errors; trying again is not its
// business, but asking the next one is.
type client struct {
	api    string // host[:port] of the registry itself
	repo   string
	plain  bool
	write  bool // uploads are meant, and tokens must allow them
	log    *slog.Logger
	policy RetryPolicy
	route  route
}

// newClient makes the client of a registry's reference.
func newClient(r ref.Ref, o Options, t *transport, warn func(string)) (*client, error) {
	c := &client{api: r.Host(), repo: r.Repo(), plain: o.PlainHTTP, log: o.Log, policy: o.Retry}
	if r.Host() == ref.DockerHub {
		c.api = ref.DockerAPI
	}
	if _, err := Proxies(o.Login.Getenv); err != nil && !o.Offline {
		return nil, err
	}
	var err error
	p := planner{name: r.Host(), own: ownEndpoint(c.api), o: o, t: t, warn: warn}
	if c.route, err = p.plan(); err != nil {
		return nil, err
	}
	for _, e := range c.route {
		e.pickScheme(o.PlainHTTP)
		if e.login, err = newLogin(e.host, r.Repo(), !e.mirror(), o, warn); err != nil {
			return nil, err
		}
		e.auth = newAuth(e.login, o, t)
	}
	return c, nil
}

// newAuth makes the part of an endpoint's client that logs in.
func newAuth(l *login, o Options, rt http.RoundTripper) *auth.Client {
	a := &auth.Client{
		Client: &http.Client{
			Transport: &loginTrip{next: rt, login: l}, CheckRedirect: checkRedirect,
		},
		Cache:      l.tokens,
		Credential: l.credential,
		ClientID:   "pfmount",
	}
	version := o.Version
	if version == "" {
		version = "dev"
	}
	a.SetUserAgent("pfmount/" + version)
	if ref.IsLoopback(l.host) {
		// Only a registry on this machine may have its token server here.
		a.BlockedRealmPrefixes = slices.DeleteFunc(auth.DefaultBlockedRealmPrefixes(),
			func(p netip.Prefix) bool { return p.Addr().IsLoopback() })
	}
	return a
}

// do sends a request and returns the answer, when it is what the method hopes for. Of several
// endpoints each is asked until one gives it.
func (c *client) do(ctx context.Context, what call) (*http.Response, error) {
	ends := c.route.serving(what.needs(c.write), what.skip)
	if len(ends) == 0 {
		return nil, &requestError{
			target: what.method + " " + clip(c.api, 255), kind: ErrRegistry, cause: errRule,
			text: "hosts.toml names no host with the capability for this",
		}
	}
	var missed []error
	for i, e := range ends {
		more := i < len(ends)-1
		resp, err := c.through(ask(ctx, e, more), e, what)
		if e.mirror() && ctx.Err() == nil {
			e.note(c.log, err)
		}
		if err == nil || !more || ctx.Err() != nil {
			return resp, afterAll(err, missed)
		}
		missed = append(missed, err)
	}
	return nil, nil // not reached
}

// afterAll says in the last endpoint's error what those before it answered.
func afterAll(err error, missed []error) error {
	if err == nil || len(missed) == 0 {
		return err
	}
	words := make([]string, len(missed))
	for i, m := range missed {
		words[i] = m.Error()
	}
	return fmt.Errorf("%w (before it: %s)", err, strings.Join(words, "; "))
}

// through asks one endpoint. Where a redirect leads may refuse since the signed URL has expired on
// the way: then the endpoint is asked once more for a new one.
func (c *client) through(ctx context.Context, e *endpoint, what call) (*http.Response, error) {
	resp, err := c.anyScheme(ctx, e, what)
	var status *statusError
	if what.writes() || !errors.As(err, &status) || !status.redirected {
		return resp, err
	}
	switch status.code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound:
		return c.anyScheme(ctx, e, what)
	}
	return resp, err
}

// anyScheme sends a request over the endpoint's scheme. Where that is not settled, on loopback,
// the first request finds it out: HTTP is asked first, and what HTTPS answers counts when HTTP
// was refused.
func (c *client) anyScheme(ctx context.Context, e *endpoint, what call) (*http.Response, error) {
	if scheme := e.knownScheme(); scheme != "" {
		return c.send(ctx, e, scheme, what)
	}
	resp, err := c.send(ctx, e, "http", what)
	if !wantsTLS(err) {
		e.keepScheme("http", err)
		return resp, err
	}
	resp, secure := c.send(ctx, e, "https", what)
	var status *statusError
	switch {
	case secure == nil, e.knownScheme() == "https", isTLS(secure), ctx.Err() != nil:
		return resp, secure
	case errors.As(err, &status) && !noTLS(secure):
		return resp, secure // a server with TLS refused HTTP, and failed otherwise
	}
	return nil, err
}

// wantsTLS says that a request over HTTP failed in a way that HTTPS may mend.
func wantsTLS(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code == http.StatusBadRequest // what servers with TLS say to plain HTTP
	}
	var failed *requestError
	return errors.As(err, &failed) && failed.kind == ErrRegistry &&
		!errors.Is(err, errRule) && !errors.Is(err, errStalled)
}

// noTLS says that a request over HTTPS found nothing that speaks TLS.
func noTLS(err error) bool {
	var record tls.RecordHeaderError
	var op *net.OpError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) ||
		errors.As(err, &op) && op.Op == "dial"
}

func (c *client) send(
	ctx context.Context, e *endpoint, scheme string, what call,
) (*http.Response, error) {
	if (scheme == "http" || e.open) && !c.plain && !ref.IsLoopback(e.host) {
		ctx = context.WithValue(ctx, anonymousKey{}, true)
	}
	actions := []string{auth.ActionPull}
	if c.write {
		actions = append(actions, auth.ActionPush)
	}
	scope := auth.ScopeRepository(c.repo, actions...)
	ctx = auth.AppendScopesForHost(withAttempt(ctx), e.host, scope)
	req, err := what.request(ctx, e.url(scheme, c.repo, what.path))
	if err != nil {
		return nil, err
	}
	if what.writes() && anonymous(ctx) {
		return nil, &requestError{
			target: target(req), kind: ErrRegistry, cause: errRule,
			text: "refused to upload over plain HTTP, or without a look at the certificate, " +
				"to another machine; --plain-http allows it",
		}
	}
	for name, values := range e.header {
		req.Header[name] = values
	}
	req.Header.Set("Accept-Encoding", "identity")
	e.login.sign(req)
	resp, err := e.auth.Do(req)
	if err == nil {
		ctx, resp, err = e.renew(ctx, req, resp)
	}
	if err != nil {
		return nil, rebuild(ctx, req, e.login.explain(ctx, http.StatusUnauthorized), err)
	}
	e.noteNoCert("")
	if what.at != nil && resp.StatusCode == http.StatusNoContent {
		return resp, nil // how far an upload came
	}
	if resp, err = e.check(ctx, resp); err == nil && what.check != nil {
		if err = what.check(resp); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
	}
	return resp, err
}

// check passes on the answers that carry what was asked for.
func (e *endpoint) check(ctx context.Context, resp *http.Response) (*http.Response, error) {
	if resp.Request.Method != http.MethodGet && resp.StatusCode/100 == 2 {
		return resp, nil
	}
	ranged := resp.Request.Header.Get("Range") != ""
	switch {
	case resp.StatusCode == http.StatusPartialContent && !ranged:
		_ = resp.Body.Close()
		return nil, &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule,
			text: "a part, status 206, in answer to a request for all",
		}
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent:
		coding := resp.Header.Get("Content-Encoding")
		if coding == "" || coding == "identity" {
			return resp, nil
		}
		_ = resp.Body.Close()
		return nil, &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule,
			text: "the answer has Content-Encoding " + clip(coding, 40) +
				", which was not asked for",
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && ranged:
		return resp, nil
	}
	failed := newStatusError(resp, serverText(resp, sentSecrets(resp.Request)...))
	// A registry may say 404 of what it does not show to this login.
	hidden := failed.code == http.StatusNotFound && strings.Contains(failed.target, "/manifests/")
	if !failed.redirected && (failed.Unwrap() == ErrDenied || hidden) {
		failed.login = e.login.explain(ctx, failed.code)
	}
	_ = resp.Body.Close()
	return nil, failed
}
