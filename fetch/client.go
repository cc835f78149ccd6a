package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// client speaks to one registry. It finds out which scheme the registry speaks, logs in, and turns what is no success
// into errors; trying again is not its business.
type client struct {
	auth   *auth.Client
	login  login
	api    string // host[:port] that answers for the registry
	repo   string
	plain  bool
	write  bool // uploads are meant, and tokens must allow them
	log    *slog.Logger
	policy retryPolicy
	warn   func(string)

	mu     sync.Mutex // guards scheme
	scheme string     // "" until the registry answered
}

// newClient makes the client of a registry's reference.
func newClient(r Ref, o Options, policy retryPolicy, rt http.RoundTripper, warn func(string)) (*client, error) {
	c := &client{api: r.host, repo: r.repo, plain: o.PlainHTTP, log: o.Log, policy: policy, warn: warn}
	if r.host == dockerHub {
		c.api = dockerAPI
	}
	var err error
	if c.login, err = loginFromEnv(o.Getenv, c.api); err != nil {
		return nil, err
	}
	c.auth = &auth.Client{
		Client:     &http.Client{Transport: rt, CheckRedirect: checkRedirect},
		Cache:      auth.NewCache(),
		Credential: c.login.credential,
		ClientID:   "pfmount",
	}
	version := o.Version
	if version == "" {
		version = "dev"
	}
	c.auth.SetUserAgent("pfmount/" + version)
	if isLoopback(c.api) {
		// A registry on this machine may have its token server here too; nobody else may send us to ourselves.
		c.auth.BlockedRealmPrefixes = slices.DeleteFunc(auth.DefaultBlockedRealmPrefixes(), func(p netip.Prefix) bool {
			return p.Addr().IsLoopback()
		})
	}
	return c, nil
}

// get asks for /v2/<repo>/<path>. Any answer but 200, 206 and 416 is an error.
func (c *client) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	return c.do(ctx, call{method: http.MethodGet, path: path, header: header})
}

// do sends a request and returns the answer, when it is what the method hopes for.
func (c *client) do(ctx context.Context, what call) (*http.Response, error) {
	c.mu.Lock()
	scheme := c.scheme
	c.mu.Unlock()
	if scheme != "" {
		return c.send(ctx, scheme, what)
	}
	first, second := c.schemes()
	resp, err := c.send(ctx, first, what)
	if second == "" || !c.wrongScheme(first, err) {
		c.settle(first, err)
		return resp, err
	}
	other, otherErr := c.send(ctx, second, what)
	var status *statusError
	switch {
	case otherErr == nil, errors.As(otherErr, &status):
		if second == "http" {
			c.warn(fmt.Sprintf("%s speaks plain HTTP: what is read can be seen on the way (not changed: digests are checked), and no credentials are sent", clip(c.api, 255)))
		}
		c.settle(second, otherErr)
		return other, otherErr
	case isX509(otherErr), ctx.Err() != nil:
		return nil, otherErr
	}
	return nil, err
}

// schemes returns which scheme to try first, and which then ("": none). Loopback is plain HTTP first. A port of its own
// elsewhere may be a registry without TLS, which shows when the TLS dial is answered in HTTP.
func (c *client) schemes() (first, second string) {
	_, port := splitHost(c.api)
	switch {
	case isLoopback(c.api) && port != "443":
		return "http", "https"
	case isLoopback(c.api):
		return "https", ""
	case c.plain:
		return "http", ""
	case port == "" || port == "443":
		return "https", ""
	}
	return "https", "http"
}

// wrongScheme says that a first request failed in a way that the other scheme may mend.
func (c *client) wrongScheme(scheme string, err error) bool {
	if scheme == "https" {
		return errors.Is(err, http.ErrSchemeMismatch)
	}
	var status *statusError
	if errors.As(err, &status) {
		return status.code == http.StatusBadRequest // what servers with TLS say to plain HTTP
	}
	var failed *requestError
	return errors.As(err, &failed) && failed.kind == ErrRegistry &&
		!errors.Is(err, errRule) && !errors.Is(err, errStalled)
}

// settle keeps the scheme that got an HTTP answer.
func (c *client) settle(scheme string, err error) {
	var status *statusError
	if err == nil || errors.As(err, &status) {
		c.mu.Lock()
		c.scheme = scheme
		c.mu.Unlock()
	}
}

func (c *client) send(ctx context.Context, scheme string, what call) (*http.Response, error) {
	if scheme == "http" && !c.plain && !isLoopback(c.api) {
		ctx = context.WithValue(ctx, anonymousKey{}, true)
	}
	actions := []string{auth.ActionPull}
	if c.write {
		actions = append(actions, auth.ActionPush)
	}
	ctx = auth.AppendScopesForHost(ctx, c.api, auth.ScopeRepository(c.repo, actions...))
	req, err := what.request(ctx, url.URL{Scheme: scheme, Host: c.api, Path: "/v2/" + c.repo + "/" + what.path})
	if err != nil {
		return nil, err
	}
	if what.writes() && anonymous(ctx) {
		return nil, &requestError{
			target: target(req), kind: ErrRegistry, cause: errRule,
			text: "refused to upload over plain HTTP to another machine; --plain-http allows it",
		}
	}
	req.Header.Set("Accept-Encoding", "identity")
	c.login.sign(req)
	resp, err := c.auth.Do(req)
	if err != nil {
		return nil, rebuild(ctx, req, c.login.describe(ctx), err)
	}
	if what.at != nil && resp.StatusCode == http.StatusNoContent {
		return resp, nil // how far an upload came
	}
	return c.check(ctx, resp)
}

// check passes on the answers that carry what was asked for.
func (c *client) check(ctx context.Context, resp *http.Response) (*http.Response, error) {
	if resp.Request.Method != http.MethodGet && resp.StatusCode/100 == 2 {
		return resp, nil
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		coding := resp.Header.Get("Content-Encoding")
		if coding == "" || coding == "identity" {
			return resp, nil
		}
		_ = resp.Body.Close()
		return nil, &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule,
			text: "the answer has Content-Encoding " + clip(coding, 40) + ", which was not asked for",
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return resp, nil
	}
	e := newStatusError(resp, serverWords(resp))
	if e.Unwrap() == ErrDenied {
		e.login = c.login.describe(ctx)
	}
	_ = resp.Body.Close()
	return nil, e
}
