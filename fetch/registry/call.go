package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/pfmount/pfmount/fetch/artifact"
)

// call is one request to a registry.
type call struct {
	method string
	path   string   // below /v2/<repo>/
	at     *url.URL // in place of path: where the registry wants an upload
	header http.Header
	check  func(*http.Response) error    // nil: any success is one
	skip   int                           // endpoints of the route not to ask
	size   int64                         // of the body, in bytes
	body   func() (io.ReadCloser, error) // nil: none; called again when it must be sent again
	query  string                        // after path
	of     artifact.WireDigest           // writes: what the answer may name; zero: anything
}

// writes says that the call changes the registry.
func (c call) writes() bool { return c.method != http.MethodGet && c.method != http.MethodHead }

// needs is what an endpoint must be capable of.
func (c call) needs(write bool) capability {
	_, name, isManifest := strings.Cut(c.path, "manifests/")
	switch {
	case write:
		return canPush
	case isManifest && !strings.Contains(name, ":"):
		return canResolve
	}
	return canPull
}

// request makes the request; u is where path leads.
func (c call) request(ctx context.Context, u url.URL) (*http.Request, error) {
	if c.at != nil {
		u = *c.at
	} else if c.query != "" {
		// A mirror's query names its registry.
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+c.query, "&")
	}
	req, err := http.NewRequestWithContext(ctx, c.method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", clip(u.Host, 255), ErrRegistry)
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	if c.body != nil {
		if req.Body, err = c.body(); err != nil {
			return nil, err
		}
		req.GetBody, req.ContentLength = c.body, c.size
	}
	return req, nil
}

// sameOrigin says that two URLs have scheme, host and port in common.
func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) &&
		strings.EqualFold(a.Hostname(), b.Hostname()) && effectivePort(a) == effectivePort(b)
}

func effectivePort(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case strings.EqualFold(u.Scheme, "http"):
		return "80"
	}
	return "443"
}

// location resolves where an upload goes. It must be at the registry itself, since it gets the
// credentials. A registry behind a proxy that ends TLS may call itself http there; what was https
// stays so.
func location(resp *http.Response) (*url.URL, error) {
	refuse := func(text string) (*url.URL, error) {
		return nil, &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule, text: text,
		}
	}
	header := resp.Header.Get("Location")
	if header == "" {
		return refuse("the answer has no Location to upload to")
	}
	base := resp.Request.URL
	u, err := base.Parse(header)
	if err != nil {
		return refuse("the answer has a Location that is no URL")
	}
	if u.Scheme == "http" && base.Scheme == "https" && strings.EqualFold(u.Host, base.Host) {
		u.Scheme = "https"
	}
	if !sameOrigin(u, base) {
		return refuse("refused to upload to another host, " + clip(u.Scheme+"://"+u.Host, 255))
	}
	u.User, u.Fragment = nil, ""
	return u, nil
}
