package registry

import (
	"context"
	"net/http"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// A login lapses: its end was not told, its password was changed, its session has ended. Most
// registries say so with 401, some with 403 or 400, as Amazon ECR does after 12 hours. They say the
// same about other things, so the answer counts unless the login's source has another login by now.
// Then the request is sent once more.

// refusal says that an answer may be due to a login that has lapsed.
func refusal(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest:
		return true
	}
	return false
}

// renewed says whether a request that got this answer is worth another try, since there is another
// token by now. Only an answer to a token counts: behind a redirect there is none. The error is
// that of the token server.
func (l *login) renewed(ctx context.Context, resp *http.Response) (bool, error) {
	a := attemptOf(ctx)
	_, sent, _ := strings.Cut(resp.Request.Header.Get("Authorization"), " ")
	if a.of == nil || sent == "" || sent != a.value {
		return false, nil
	}
	if !refusal(resp.StatusCode) {
		l.tokens.prove(a)
		return false, nil
	}
	return l.tokens.another(ctx, a, resp.StatusCode)
}

// renew sends a request once more when its answer is a refusal and there is another login by now.
// It returns the answer that counts, with its context. A failure of the token server counts only
// where another try may mend it.
func (e *endpoint) renew(
	ctx context.Context, req *http.Request, resp *http.Response,
) (context.Context, *http.Response, error) {
	again, err := e.login.renewed(ctx, resp)
	if err != nil && retriable(rebuild(ctx, req, "", err)) {
		_ = resp.Body.Close()
		return ctx, nil, err
	}
	if !again {
		return ctx, resp, nil
	}
	finish(resp)
	ctx = withAttempt(ctx)
	attemptOf(ctx).fresh = true
	req = req.Clone(ctx)
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			return ctx, nil, err
		}
	}
	if resp, err = e.auth.Do(req); err == nil {
		_, _ = e.login.renewed(ctx, resp) // notes whether the token is good
	}
	return ctx, resp, err
}

// prove notes that a token was good for something.
func (c *tokenCache) prove(a *attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.of.value == a.value {
		a.of.proved = true
	}
}

// another says whether there is another token than the one that a request was refused with. The
// first request asks for it, all others wait for the answer. An answer that brings nothing holds
// for a second.
func (c *tokenCache) another(ctx context.Context, a *attempt, status int) (bool, error) {
	t := a.of
	for {
		c.mu.Lock()
		switch {
		case t.value != a.value:
			defer c.mu.Unlock()
			return true, nil
		case a.fresh, c.now().Sub(t.vain) < denialLasts:
			defer c.mu.Unlock()
			return false, nil
		case t.flight == nil:
			f := &tokenFlight{done: make(chan struct{}), renews: true}
			t.flight = f
			fetch := c.renewal(t, status)
			c.mu.Unlock()
			c.fly(ctx, t, f, fetch)
			return f.err == nil && f.value != a.value, f.err
		}
		f := t.flight
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// renewal returns how to get another token. Another login always makes one. The same login makes
// one where the token may have ended before its time: it was good for something, and 401 or 403 is
// the answer. The caller holds c.mu.
func (c *tokenCache) renewal(t *token, status int) func(context.Context) (string, error) {
	ended := t.proved && t.cred != auth.EmptyCredential && status != http.StatusBadRequest
	if t.scheme == auth.SchemeBasic || ended {
		return t.fetch
	}
	value, cred, fetch := t.value, t.cred, t.fetch
	return func(ctx context.Context) (string, error) {
		if now, err := c.login(ctx); err != nil || now == cred {
			return value, err
		}
		return fetch(ctx)
	}
}
