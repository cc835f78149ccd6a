package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/cred"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// maxTokenAnswer bounds what a token server says, in bytes: a token must fit into a header, and is
// there twice at most.
const maxTokenAnswer = 128 << 10

// tokenNote goes with the request for a token, in its context, and comes back with what auth.Client
// does not tell.
type tokenNote struct {
	lasts   time.Duration // how long the token holds
	secrets []string      // what was sent to get it
	cred    auth.Credential
	source  string // where cred comes from, for messages
}

type tokenNoteKey struct{}

// tokenNoteOf returns the note of a request for a token, nil for any other request.
func tokenNoteOf(ctx context.Context) *tokenNote {
	note, _ := ctx.Value(tokenNoteKey{}).(*tokenNote)
	return note
}

// uses notes the login that is told to the token server, which is not quoted with its secrets.
func (n *tokenNote) uses(cred auth.Credential, source string) {
	if n != nil {
		n.cred, n.source = cred, source
		n.secrets = append(n.secrets, cred.Password, cred.RefreshToken)
	}
}

// loginTrip stands between auth.Client and the network. It picks the challenge that auth.Client is
// to answer, which reads the first only, and reads the answers of token servers: their bounds,
// their end and their errors.
type loginTrip struct {
	next  http.RoundTripper
	login *login
}

var _ http.RoundTripper = (*loginTrip)(nil)

// RoundTrip sends one request.
func (t *loginTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	note := tokenNoteOf(req.Context())
	if note == nil && req.Response == nil {
		askedOf(req.Context()).of.heard(req)
	}
	if note != nil {
		err = t.token(note, resp)
	} else if resp.StatusCode == http.StatusUnauthorized {
		if err = pickChallenge(resp); err == nil {
			t.dropVain(req, resp)
		}
	} else if resp.StatusCode/100 == 3 && resp.Header.Get("Location") != "" {
		_, err = hop(resp)
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// dropVain takes the challenge from an answer to a password where its source has no other one:
// auth.Client would send the same again.
func (t *loginTrip) dropVain(req *http.Request, resp *http.Response) {
	if scheme, _, _ := strings.Cut(req.Header.Get("Authorization"), " "); scheme != "Basic" {
		return
	}
	if again, _ := t.login.renewed(req.Context(), resp); !again {
		resp.Header.Del("WWW-Authenticate")
	}
}

// token checks the answer to a request for a token.
func (t *loginTrip) token(note *tokenNote, resp *http.Response) error {
	if resp.StatusCode/100 == 3 {
		return checkHop(resp)
	}
	if resp.StatusCode != http.StatusOK {
		secrets := append(sentSecrets(resp.Request), note.secrets...)
		e := newStatusError(resp, serverText(resp, secrets...))
		e.tokens = true
		if refusal(e.code) {
			e.login = t.login.explain(resp.Request.Context(), e.code)
		}
		return e
	}
	bad := func(text string) error {
		return &loginError{target(resp.Request) + ": the token server's answer " + text}
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer+1))
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	if len(raw) > maxTokenAnswer {
		return bad(fmt.Sprintf("is longer than %d bytes", maxTokenAnswer))
	}
	var answer struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"` // seconds
	}
	if json.Unmarshal(raw, &answer) != nil {
		return bad("is not the JSON of a token")
	}
	token := answer.AccessToken
	if token == "" && resp.Request.Method == http.MethodGet {
		token = answer.Token
	}
	switch {
	case token == "":
		return bad("holds no token")
	case !cred.IsToken68(token):
		return bad("holds a token with characters that no token has")
	}
	// Without expires_in it is 60 s: https://distribution.github.io/distribution/spec/auth/token/
	if secs := answer.ExpiresIn; secs > 0 && !math.IsInf(secs, 0) {
		note.lasts = time.Duration(min(secs, tokenLongest.Seconds()) * float64(time.Second))
	}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	return nil
}

// checkHop refuses, in words that can be shown, what auth.Client would refuse in others: a login
// goes to the host that it was meant for, and not from https to http.
func checkHop(resp *http.Response) error {
	from := resp.Request.URL
	to, err := hop(resp)
	if err != nil {
		return err
	}
	replayed := resp.StatusCode == http.StatusTemporaryRedirect ||
		resp.StatusCode == http.StatusPermanentRedirect
	switch {
	case from.Scheme == "https" && to.Scheme != "https":
		return fmt.Errorf("%w to follow a redirect from https to http, to %s",
			errRule, clip(to.Host, 255))
	case replayed && resp.Request.Method == http.MethodPost && !sameOrigin(from, to):
		return fmt.Errorf("%w to send a login to another host, %s", errRule, clip(to.Host, 255))
	}
	return nil
}

// hop is where a redirect leads. What is no address of HTTP today is none at the next try either.
func hop(resp *http.Response) (*url.URL, error) {
	to, err := resp.Location()
	if err != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return nil, fmt.Errorf("%w to follow %s to what is no address of HTTP",
			errRule, clip(resp.Request.URL.Host, 255))
	}
	return to, nil
}

// pickChallenge leaves one challenge in an answer: the first for a bearer token, else the first for
// a password.
func pickChallenge(resp *http.Response) error {
	challenges, err := parseChallenges(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return &loginError{target(resp.Request) + ": " + err.Error()}
	}
	for _, scheme := range []string{"bearer", "basic"} {
		for _, c := range challenges {
			if strings.EqualFold(c.scheme, scheme) {
				resp.Header.Set("WWW-Authenticate", c.text())
				return c.checkRealm(resp.Request.URL)
			}
		}
	}
	return nil
}

// checkRealm refuses, in words that can be shown, what auth.Client would refuse in others.
func (c challenge) checkRealm(registry *url.URL) error {
	if !strings.EqualFold(c.scheme, "bearer") {
		return nil
	}
	realm, err := url.Parse(c.param("realm"))
	switch {
	case err != nil, realm.Host == "", realm.Scheme != "http" && realm.Scheme != "https":
		return &loginError{clip(registry.Host, 255) + " wants a token and names no token server"}
	case realm.Scheme == "http" && registry.Scheme == "https":
		return fmt.Errorf("%w to ask for a token over plain HTTP, at %s, as %s wants",
			errRule, clip(realm.Host, 255), clip(registry.Host, 255))
	}
	return nil
}

// loginFailure finds the error of ours in what auth.Client made of it, nil when there is none.
func loginFailure(err error) error {
	var status *statusError
	var login *loginError
	switch {
	case errors.As(err, &status):
		return status
	case errors.As(err, &login):
		return login
	}
	return nil
}
