package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// errRule marks what pfmount itself refuses to do on the network, whatever the server wants.
var errRule = errors.New("refused")

// statusError is an HTTP answer that is no success, rebuilt without the URL's query, which may be
// signed.
type statusError struct {
	target     string // method, host and path
	code       int
	wait       time.Duration // Retry-After; 0: not said
	words      string        // the server's own, escaped
	redirected bool          // the answer came from where the registry sent us
	tokens     bool          // a token server's, which knows no images
	login      string        // for 401 and 403: which credentials were used, never the secret
}

func (e *statusError) Error() string {
	s := e.target + ": " + strconv.Itoa(e.code) + " " + http.StatusText(e.code)
	if e.words != "" {
		s += " (" + e.words + ")"
	}
	if e.login != "" {
		s += ", " + e.login
	}
	return s + ": " + e.Unwrap().Error()
}

func (e *statusError) Unwrap() error {
	switch e.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusBadRequest:
		if strings.HasPrefix(e.words, "DENIED") || strings.HasPrefix(e.words, "UNAUTHORIZED") {
			return ErrDenied // Amazon ECR, to a login that has lapsed
		}
	case http.StatusNotFound:
		if !e.tokens {
			return artifact.ErrNotFound
		}
	}
	return ErrRegistry
}

// requestError is a request without an answer. Its text is built from errors known to hold no
// secret.
type requestError struct {
	target string
	text   string
	kind   error // ErrRegistry or ErrDenied
	cause  error // never a *url.Error
}

func (e *requestError) Error() string   { return e.target + ": " + e.text + ": " + e.kind.Error() }
func (e *requestError) Unwrap() []error { return []error{e.kind, e.cause} }

// target names a request in messages: no query, no user, no fragment.
func target(req *http.Request) string {
	return req.Method + " " + clip(req.URL.Host+req.URL.EscapedPath(), maxText)
}

// rebuild turns an error of auth.Client.Do into one of ours. They hold URLs with signed queries,
// realm URLs and proxies' passwords, so none is printed as it comes.
func rebuild(ctx context.Context, req *http.Request, login string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	at := target(req)
	if ours := loginFailure(err); ours != nil {
		return ours
	}
	if errors.Is(err, errTokenSlow) {
		return &requestError{
			target: at, text: errTokenSlow.Error(), kind: ErrRegistry, cause: errTokenSlow,
		}
	}
	var viaURL *url.Error
	if errors.As(err, &viaURL) {
		// What failed may be the token server, or the target of a redirect.
		host := req.URL.Host
		if u, perr := url.Parse(viaURL.URL); perr == nil && u.Host != "" && u.Host != host {
			host = u.Host
			at += ": " + clip(u.Host+u.EscapedPath(), maxText)
		}
		text := plainText(viaURL.Err)
		if errors.Is(viaURL.Err, http.ErrSchemeMismatch) {
			text += askedOf(ctx).of.plainHint(host)
		}
		if why := askedOf(ctx).of.lackOfCert(); why != "" && isBroken(viaURL.Err) {
			text += "; " + why
		}
		return &requestError{target: at, text: text, kind: ErrRegistry, cause: viaURL.Err}
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return &requestError{
			target: at, text: "401 Unauthorized, " + login, kind: ErrDenied,
			cause: auth.ErrBasicCredentialNotFound,
		}
	}
	text := "the login failed: " + plainText(errors.Unwrap(err))
	return &requestError{target: at, text: text, kind: ErrDenied, cause: errRule}
}

// plainText says what went wrong on the network. Errors of known types speak for themselves; of any
// other only a text that holds nothing like an address passes.
func plainText(err error) string {
	var (
		dns    *net.DNSError
		op     *net.OpError
		errno  syscall.Errno
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
	)
	switch {
	case err == nil:
		return "no reason given"
	case errors.Is(err, errRule), errors.Is(err, errStalled):
		return clip(err.Error(), maxText)
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the server answered with plain HTTP, not TLS"
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return "no such host " + clip(dns.Name, 255)
		}
		return "the name " + clip(dns.Name, 255) + " could not be looked up"
	case errors.As(err, &verify), isTLS(err):
		return tlsText(innermost(err).Error())
	case errors.As(err, &alert), errors.As(err, &record):
		return "TLS: " + clip(innermost(err).Error(), maxText)
	case errors.As(err, &errno):
		if errors.As(err, &op) && op.Op == "proxyconnect" {
			return "the proxy: " + errno.Error()
		}
		return errno.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed early"
	case isTimeout(err):
		return "timed out"
	}
	text := innermost(err).Error()
	if strings.HasPrefix(text, "http2: client conn could not be established") {
		// What is left of a TLS 1.3 alert that came after our side of the handshake was done.
		return "the connection ended with the TLS handshake"
	}
	if strings.Contains(text, "://") || strings.ContainsAny(text, "@?") ||
		strings.Contains(text, "proxy") {
		return fmt.Sprintf("the request failed (%T)", innermost(err))
	}
	return clip(text, maxText)
}

// isBroken says that a connection ended, by an alert or without one.
func isBroken(err error) bool {
	var alert tls.AlertError
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &alert) || isTLS(err) ||
		strings.HasPrefix(innermost(err).Error(), "http2: client conn")
}

// tlsText says what to do about the commonest failure.
func tlsText(text string) string {
	hint := ""
	if strings.Contains(text, "unknown authority") {
		hint = "; --ca-file names further authorities"
	}
	return "TLS: " + clip(strings.TrimPrefix(text, "tls: "), maxText) + hint
}

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// isTLS says that the two sides do not agree on TLS: the server's certificate does not pass, or it
// refuses ours. That is never a reason to try again, or otherwise.
func isTLS(err error) bool {
	var (
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		roots     x509.SystemRootsError
		op        *net.OpError
	)
	return errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &name) ||
		errors.As(err, &invalid) || errors.As(err, &roots) ||
		// crypto/tls names alerts so.
		errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error")
}
