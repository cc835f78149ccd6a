package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	tokenLimit    = time.Minute      // for one token, however slowly it comes
	tokenDefault  = time.Minute      // the life of a token that says nothing of it, see below
	tokenLongest  = 24 * time.Hour   // of a token that says more
	tokenAhead    = 30 * time.Second // renewed so long before its end, at most a fifth of its life
	denialLasts   = time.Second      // readers that come together are told no once
	renewalPauses = time.Second      // after a renewal ahead of time that failed
)

// tokenCache is auth.Client's cache. What it adds to that of oras-go: a token is renewed ahead of
// its end, in one request however many wait; a request that was refused with an old token gets the
// new one when that is there; and a token belongs to the scopes that were asked for, whatever the
// registry's challenge adds to them.
type tokenCache struct {
	now   func() time.Time
	login func(context.Context) (auth.Credential, error) // asks the login's source

	mu     sync.Mutex // guards the fields below, and those of each token
	scheme auth.Scheme
	tokens map[string]*token // by scopes
}

var _ auth.Cache = (*tokenCache)(nil)

// token is what authorizes a request: a bearer token, or user and password in base64.
type token struct {
	scheme  auth.Scheme
	value   string // "": none yet
	renew   time.Time
	expires time.Time // zero: never
	fetch   func(context.Context) (string, error)
	flight  *tokenFlight

	denied   error
	deniedAt time.Time

	cred   auth.Credential // the login that it was got with
	source string          // where that comes from, for messages
	proved bool            // it was good for a request
	vain   time.Time       // when its source had nothing else, after a refusal
}

// tokenFlight is one request for a token, and what came of it.
type tokenFlight struct {
	renews bool          // it follows a refusal, and may find that there is nothing new
	done   chan struct{} // closed when the fields below are set
	value  string
	err    error
	left   bool // the caller that made the request gave up: err says nothing to others
}

// attempt is what one call of auth.Client.Do has sent.
type attempt struct {
	value  string
	of     *token // that has or had the value
	source string // of its login
	fresh  bool   // its source was asked for this very call
}

// takes notes the token that is sent. The caller holds the cache's mu.
func (a *attempt) takes(t *token, value string) { a.of, a.value, a.source = t, value, t.source }

type attemptKey struct{}

func withAttempt(ctx context.Context) context.Context {
	return context.WithValue(ctx, attemptKey{}, new(attempt))
}

func attemptOf(ctx context.Context) *attempt {
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok {
		return a
	}
	return new(attempt)
}

func newTokenCache() *tokenCache {
	// Without the monotonic part, which stands still while a machine sleeps.
	return &tokenCache{
		now: func() time.Time { return time.Now().Round(0) }, tokens: map[string]*token{},
	}
}

// GetScheme returns how the registry wants callers to authenticate.
func (c *tokenCache) GetScheme(context.Context, string) (auth.Scheme, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scheme == auth.SchemeUnknown {
		return c.scheme, errdef.ErrNotFound
	}
	return c.scheme, nil
}

// GetToken returns a token that holds for a while longer, and none that this request was already
// refused with.
func (c *tokenCache) GetToken(
	ctx context.Context, registry string, scheme auth.Scheme, _ string,
) (string, error) {
	c.mu.Lock()
	t := c.tokens[scopesOf(ctx, registry, scheme)]
	if t == nil || t.scheme != scheme || t.value == "" {
		c.mu.Unlock()
		return "", errdef.ErrNotFound
	}
	a, value, due := attemptOf(ctx), t.value, t.due(c.now())
	c.mu.Unlock()
	if due {
		fresh, err := c.next(ctx, t, value)
		switch {
		case err == nil:
			value, a.fresh = fresh, true
		case !c.postpone(t):
			return "", err
		}
	}
	if value == a.value {
		return "", errdef.ErrNotFound
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a.takes(t, value)
	return value, nil
}

// Set returns a token that this request was not refused with yet: the one that is there by now, or
// a new one.
func (c *tokenCache) Set(
	ctx context.Context, registry string, scheme auth.Scheme, _ string,
	fetch func(context.Context) (string, error),
) (string, error) {
	key := scopesOf(ctx, registry, scheme)
	c.mu.Lock()
	t := c.tokens[key]
	if t == nil || t.scheme != scheme {
		t = &token{scheme: scheme}
		c.tokens[key] = t
	}
	c.scheme, t.fetch = scheme, fetch
	c.mu.Unlock()
	a := attemptOf(ctx)
	value, err := c.next(ctx, t, a.value)
	c.mu.Lock()
	defer c.mu.Unlock()
	a.takes(t, value)
	a.fresh = true
	return value, err
}

// scopesOf names a token: by what was asked for.
func scopesOf(ctx context.Context, registry string, scheme auth.Scheme) string {
	if scheme == auth.SchemeBasic {
		return ""
	}
	return strings.Join(auth.GetAllScopesForHost(ctx, registry), " ")
}

// due says that a token must be renewed before it is used again.
func (t *token) due(now time.Time) bool { return !t.renew.IsZero() && !now.Before(t.renew) }

// postpone goes on with a token that could not be renewed ahead of its end. It is false when the
// end has come.
func (c *tokenCache) postpone(t *token) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if !now.Before(t.expires) {
		return false
	}
	t.renew = now.Add(renewalPauses)
	return true
}

// next returns another token than old. The first caller asks for it, with the right to give up;
// the others wait.
func (c *tokenCache) next(ctx context.Context, t *token, old string) (string, error) {
	for {
		c.mu.Lock()
		now := c.now()
		switch {
		case t.value != "" && t.value != old && !t.due(now):
			defer c.mu.Unlock()
			return t.value, nil
		case t.denied != nil && now.Sub(t.deniedAt) < denialLasts:
			defer c.mu.Unlock()
			return "", t.denied
		case t.flight == nil:
			f := &tokenFlight{done: make(chan struct{})}
			t.flight = f
			fetch := t.fetch
			c.mu.Unlock()
			c.fly(ctx, t, f, fetch)
			return f.value, f.err
		}
		f := t.flight
		c.mu.Unlock()
		select {
		case <-f.done:
			if !f.left && !(f.renews && f.value == old) {
				return f.value, f.err
			}
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// fly asks for a token.
func (c *tokenCache) fly(
	ctx context.Context, t *token, f *tokenFlight, fetch func(context.Context) (string, error),
) {
	note, asked := &tokenNote{lasts: tokenDefault}, c.now()
	ctx = context.WithValue(ctx, tokenNoteKey{}, note)
	timed, cancel := context.WithTimeoutCause(ctx, tokenLimit, errTokenSlow)
	defer cancel()
	f.value, f.err = fetch(timed)
	f.left = ctx.Err() != nil
	if f.err != nil && !f.left && errors.Is(context.Cause(timed), errTokenSlow) {
		f.err = errTokenSlow
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.flight = nil
	if f.renews && !f.left && (f.err != nil || f.value == t.value) {
		t.vain = c.now()
	}
	switch {
	case f.err == nil && f.renews && f.value == t.value:
	case f.err == nil:
		t.value, t.denied = f.value, nil
		t.cred, t.source, t.proved = note.cred, note.source, false
		if t.scheme == auth.SchemeBearer {
			t.expires = asked.Add(note.lasts)
			t.renew = t.expires.Add(-min(tokenAhead, note.lasts/5))
		}
	case !f.left && isDenial(f.err):
		t.denied, t.deniedAt = f.err, c.now()
	}
	close(f.done)
}

// isDenial says that the login, or the lack of one, is why there is no token. An identity token
// that has expired is answered with 400: https://www.rfc-editor.org/rfc/rfc6749#section-5.2
func isDenial(err error) bool {
	var status *statusError
	return errors.Is(err, ErrDenied) || errors.Is(err, auth.ErrBasicCredentialNotFound) ||
		errors.As(err, &status) && refusal(status.code)
}

// errTokenSlow ends a request for a token that takes too long.
var errTokenSlow = fmt.Errorf("the token server: %w (%s)", errStalled, tokenLimit)
