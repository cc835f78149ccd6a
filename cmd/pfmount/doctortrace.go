package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/artifact"
)

// maxMeetings bounds how many hosts a leg tells of.
const maxMeetings = 16

// wayIn notes how connections are made while an image is opened, and when its manifest is there. As the Meta of that it
// keeps nothing.
type wayIn struct {
	start time.Time

	mu       sync.Mutex // guards the fields below
	host     string     // that a connection is being made to
	legs     [3]*leg    // name, connect, tls
	manifest time.Duration
}

// leg is one part of connecting, at each host where there was one.
type leg struct {
	name, advice string
	unused       string // why there was none, when all went well
	hosts        []meeting
	begun        map[string]time.Time
}

// meeting is how a leg went at one host, the last time.
type meeting struct {
	Host    string    `json:"host"`
	OK      bool      `json:"ok"`
	Text    string    `json:"text"`
	Seconds float64   `json:"seconds"`
	Issuer  string    `json:"issuer,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

var _ fetch.Meta = (*wayIn)(nil)

func newWayIn() *wayIn {
	return &wayIn{start: time.Now(), legs: [3]*leg{
		{name: "name", unused: "there is no name to look up", advice: "check the name, and this machine's DNS: getent hosts HOST", begun: map[string]time.Time{}},
		{name: "connect", unused: "no connection was needed", advice: "check that the host is up, and whether a firewall or a proxy (HTTPS_PROXY) stands between", begun: map[string]time.Time{}},
		{name: "tls", unused: "plain HTTP", advice: "check the certificate, its authority (--ca-file) and the clock", begun: map[string]time.Time{}},
	}}
}

func (w *wayIn) trace() *httptrace.ClientTrace {
	name, connect, secure := w.legs[0], w.legs[1], w.legs[2]
	return &httptrace.ClientTrace{
		GetConn: func(hostport string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.host = hostport
		},
		DNSStart: func(i httptrace.DNSStartInfo) { w.begin(name, "") },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			w.end(name, "", i.Err, meeting{Text: fmt.Sprintf("%d addresses", len(i.Addrs))})
		},
		ConnectStart:      func(_, addr string) { w.begin(connect, addr) },
		ConnectDone:       func(_, addr string, err error) { w.end(connect, addr, err, meeting{Text: "connected"}) },
		TLSHandshakeStart: func() { w.begin(secure, "") },
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			m := meeting{Text: tls.VersionName(s.Version)}
			if len(s.PeerCertificates) > 0 {
				c := s.PeerCertificates[0]
				m.Issuer, m.Expires = c.Issuer.String(), c.NotAfter.UTC()
				m.Text += fmt.Sprintf(", by %q, until %s", m.Issuer, m.Expires.Format(time.RFC3339))
			}
			w.end(secure, "", err, m)
		},
	}
}

// begin notes that a leg begins at a host, the present one for "".
func (w *wayIn) begin(l *leg, host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if host == "" {
		host = w.host
	}
	l.begun[host] = time.Now()
}

// end notes how it went.
func (w *wayIn) end(l *leg, host string, err error, m meeting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if host == "" {
		host = w.host
	}
	m.Host, m.OK, m.Seconds = host, err == nil, time.Since(l.begun[host]).Seconds()
	if err != nil {
		m.Text = err.Error()
	}
	m.Text = host + ": " + m.Text
	for i := range l.hosts {
		if l.hosts[i].Host == host {
			l.hosts[i] = m
			return
		}
	}
	if len(l.hosts) < maxMeetings {
		l.hosts = append(l.hosts, m)
	}
}

// Bytes runs fill, if there is one. What has a size is named by the manifest, which is there then.
func (w *wayIn) Bytes(ctx context.Context, _ [32]byte, size int64, fill func(context.Context, artifact.Sink) error) ([]byte, error) {
	if fill == nil {
		return nil, fs.ErrNotExist
	}
	w.mu.Lock()
	if size >= 0 && w.manifest == 0 {
		w.manifest = time.Since(w.start)
	}
	w.mu.Unlock()
	if fill == nil {
		return nil, fs.ErrNotExist
	}
	var b memorySink
	err := fill(ctx, &b)
	return b.Buffer.Bytes(), err
}

func (w *wayIn) Get(string) ([]byte, error) { return nil, fs.ErrNotExist }
func (w *wayIn) Put(string, []byte) error   { return nil }

// memorySink is a Sink in memory.
type memorySink struct{ bytes.Buffer }

func (m *memorySink) Reset() error { m.Buffer.Reset(); return nil }
