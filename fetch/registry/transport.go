package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"errors"
	"net/http/httptrace"
	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/sched"
)

// maxHosts bounds the table of hosts: redirects name them. Hosts beyond it share one place.
const maxHosts = 256

// idleConn is how long an idle connection is kept, as long as an idle file of the cache: a walk may
// leave one for each of MaxConns, and what a registry or a proxy has dropped silently costs a try.
const idleConn = 10 * time.Second

// maxHeader bounds the header of an answer, in bytes; those of registries have some KB.
const maxHeader = 256 << 10

// maxHops is the number of redirects that are followed.
const maxHops = 5

// transport is the last RoundTripper before the network. It keeps credentials off plain HTTP,
// admits MaxConns requests at once to a host, the most urgent first (a request holds its place
// until its body is at the end or closed), keeps away from hosts that are down, ends requests that
// bring nothing for the stall time, and counts.
type transport struct {
	base    http.RoundTripper
	plain   bool // credentials over plain HTTP are allowed
	stall   time.Duration
	limiter *sched.Limiter
	policy  RetryPolicy
	traffic *artifact.Counters
	special []*http.Transport // those of endpoints with certificates or time-outs of their own

	mu    sync.Mutex // guards hosts
	hosts map[string]*host
}

type host struct {
	breaker *breaker
	slots   sched.HostSlots
}

var _ http.RoundTripper = (*transport)(nil)

// newTransport returns the transport and the http.Client around it.
func newTransport(o Options, traffic *artifact.Counters) *transport {
	dialer := &net.Dialer{Timeout: o.StallTimeout, KeepAlive: 15 * time.Second}
	return &transport{
		base: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment, // Proxies has looked at it
			TLSClientConfig:        &tls.Config{GetClientCertificate: certs{}.client},
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // stored bytes are hashed as they come
			MaxIdleConnsPerHost:    o.MaxConns,
			IdleConnTimeout:        idleConn,
			TLSHandshakeTimeout:    o.StallTimeout,
			MaxResponseHeaderBytes: maxHeader,
			// A connection that died quietly is noticed before a retry runs into it.
			HTTP2: &http.HTTP2Config{
				SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
			},
		},
		plain: o.PlainHTTP, stall: o.StallTimeout, policy: o.Retry,
		traffic: traffic, hosts: map[string]*host{},
		limiter: sched.NewLimiter(o.MaxConns, max(1, o.MaxConns-1)), // one is left for readers
	}
}

// CloseIdleConnections gives idle connections back; http.Client looks for it.
func (t *transport) CloseIdleConnections() {
	for _, s := range t.special {
		s.CloseIdleConnections()
	}
	if base, ok := t.base.(*http.Transport); ok {
		base.CloseIdleConnections()
	}
}

func (t *transport) host(req *http.Request) *host {
	key := req.URL.Scheme + "://" + strings.ToLower(req.URL.Host)
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hosts[key]
	if h == nil && len(t.hosts) >= maxHosts {
		key = ""
		h = t.hosts[key]
	}
	if h == nil {
		h = &host{breaker: t.policy.breaker(askedOf(req.Context()))}
		t.hosts[key] = h
	}
	return h
}

// RoundTrip sends one request.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	h := t.host(req)
	err := t.guard(req)
	var p *probe
	var release func()
	if err == nil {
		p, release, err = t.admit(ctx, h, isToken(req))
	}
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	w := newWatch(ctx, t.stall)
	sent := t.limitRepeats(w.watchBody(req), w)
	w.start()
	t.traffic.Requests.Add(1)
	resp, err := t.sender(ctx).RoundTrip(sent)
	w.answerArrived()
	if err != nil {
		err = w.explain(err)
		h.breaker.report(p, err, ctx.Err() == nil)
		if ctx.Err() == nil {
			t.limiter.Report(true, 0)
		}
		w.cancel(nil)
		release()
		return nil, err
	}
	h.breaker.report(p, answered(resp), true)
	busy := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500
	t.limiter.Report(busy, retryAfter(resp.Header, time.Now()))
	body := &watchedBody{
		rc: resp.Body, watch: w, release: release, bytes: &t.traffic.Bytes,
		left: resp.ContentLength, h1: resp.ProtoMajor == 1,
	}
	if askedOf(ctx).more {
		// A host that answers and then stalls counts as down where another can be asked.
		body.broke = func(err error) { h.breaker.report(nil, err, ctx.Err() == nil) }
	}
	resp.Body = body
	return resp, nil
}

// sender is what a request goes out by.
func (t *transport) sender(ctx context.Context) http.RoundTripper {
	if base := askedOf(ctx).of.base; base != nil {
		return base
	}
	return t.base
}

// answered tells a host that is down behind its proxy from one that answers.
func answered(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return newStatusError(resp, "another reader was just told")
	}
	return nil
}

func newStatusError(resp *http.Response, words string) *statusError {
	e := &statusError{
		target: target(resp.Request), code: resp.StatusCode, words: words,
		redirected: resp.Request.Response != nil,
	}
	switch e.code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		e.wait = retryAfter(resp.Header, time.Now())
	}
	return e
}

// guard refuses to send secrets where any host on the way can read them.
func (t *transport) guard(req *http.Request) error {
	if req.URL.Scheme == "https" || t.plain || ref.IsLoopback(req.URL.Host) {
		return nil
	}
	if req.Header.Get("Authorization") == "" && (req.Body == nil || req.Body == http.NoBody) {
		return nil
	}
	return fmt.Errorf("%w to send credentials over plain HTTP to %s; --plain-http allows it",
		errRule, clip(req.URL.Host, 255))
}

// isToken says that a request asks for a token. Those do not queue behind the blobs that wait for
// them.
func isToken(req *http.Request) bool { return tokenNoteOf(req.Context()) != nil }

// admit waits for the host's breaker and for a slot.
func (t *transport) admit(ctx context.Context, h *host, token bool) (*probe, func(), error) {
	for {
		p, err := h.breaker.allow(ctx)
		if err != nil {
			return nil, nil, err
		}
		if token {
			return p, func() {}, nil
		}
		priority := sched.PriorityOf(ctx)
		if p != nil {
			priority = sched.NewPriority(sched.Reader) // others wait for what a probe finds
		}
		release, err := t.limiter.Acquire(ctx, &h.slots, priority)
		if err != nil {
			h.breaker.report(p, nil, false)
			return nil, nil, err
		}
		if p != nil || !h.breaker.down() {
			return p, release, nil
		}
		release() // it went down while this request waited for its place
	}
}

// checkRedirect is http.Client's: at most maxHops, never down from https to http, no upload that
// becomes a GET, and no Referer, since the URL of a private repository is a secret.
// Authorization is dropped by auth.Client when the origin changes.
func checkRedirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer")
	if !sameOrigin(req.URL, via[0].URL) {
		for name := range askedOf(req.Context()).of.header {
			req.Header.Del(name)
		}
	}
	if len(via) > maxHops {
		return fmt.Errorf("%w to follow more than %d redirects", errRule, maxHops)
	}
	if was := via[0].Method; req.Method != was && !isToken(req) {
		return fmt.Errorf("%w to follow a redirect (%d) to %s, which makes %s a %s and uploads "+
			"nothing; a login page or a proxy may stand before the registry, or it has moved",
			errRule, req.Response.StatusCode, clip(req.URL.Host+req.URL.EscapedPath(), 100),
			was, req.Method)
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead &&
		!sameOrigin(req.URL, via[0].URL) {
		return fmt.Errorf("%w to upload to another host, %s", errRule, clip(req.URL.Host, 255))
	}
	if req.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https" {
		return fmt.Errorf("%w to follow a redirect from https to http, to %s",
			errRule, clip(req.URL.Host, 255))
	}
	return nil
}

// maxRepeats is how often net/http may send one request again by itself. It does so when an idle
// connection turns out to be dead, once for each that it has kept: with 32 of them that would be 32
// requests of which no policy knows.
const maxRepeats = 2

// errRepeats ends a request that net/http would go on repeating; the retry policy has the next
// word.
var errRepeats = errors.New("connection after connection was closed without an answer")

// limitRepeats counts what net/http sends. When a second connection is needed, the idle ones are as
// dead as the first one was: without them the next is a new one, whose failure net/http reports.
func (t *transport) limitRepeats(req *http.Request, w *watch) *http.Request {
	var conns atomic.Int64
	return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			n := conns.Add(1)
			if n == 1 {
				return
			}
			t.traffic.Requests.Add(1)
			if n > 1+maxRepeats {
				w.cancel(errRepeats)
				return
			}
			if idle, ok := t.sender(req.Context()).(*http.Transport); ok {
				idle.CloseIdleConnections()
			}
		},
	}))
}
