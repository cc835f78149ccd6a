package registry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
)

// Description says how a registry's image would be reached. To find out, files are read and
// credential helpers are run; no request is sent.
type Description struct {
	Endpoints []Endpoint // in the order in which they are asked
	HostsFile string     // the hosts.toml, or folder of certificates, that applies; "": none
	Warnings  []string   // of these files and of helpers, one sentence each
}

// Endpoint is one place of a Survey.
type Endpoint struct {
	URL          string   // of the repository's API; without the scheme where it is not known yet
	Mirror       bool     // it answers for the registry
	Capabilities []string // of "pull", "resolve", "push"
	Unchecked    bool     // its certificate is not looked at
	Login        string   // which credentials it may be told, and their source; "": none
	LoginError   error    // why Login cannot be told; requests fail with it
}

// Describe returns how a registry's image would be reached. The error is what Open would fail with
// before it sends a request.
func Describe(ctx context.Context, r ref.Ref, o Options) (Description, error) {
	var s Description
	o = o.WithDefaults()
	if r.Kind() != ref.Registry {
		return s, fmt.Errorf("%s: in no registry: %w", clip(r.String(), maxText), ref.ErrInvalid)
	}
	warn := func(text string) {
		if !slices.Contains(s.Warnings, text) {
			s.Warnings = append(s.Warnings, text)
		}
	}
	t := newTransport(o, new(artifact.Counters))
	defer t.CloseIdleConnections()
	if dir := hostsFolder(o.TLS.HostsDir, r.Host()); dir != "" {
		s.HostsFile = dir
		if name := filepath.Join(dir, "hosts.toml"); isFile(name) {
			s.HostsFile = name
		}
	}
	c, err := newClient(r, o, t, warn)
	if err != nil {
		return s, err
	}
	for _, e := range c.route {
		login, err := e.login.describe(ctx)
		if ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		place := e.url(e.knownScheme(), c.repo, "")
		place.RawQuery = ""
		s.Endpoints = append(s.Endpoints, Endpoint{
			URL: strings.TrimPrefix(place.String(), "//"), Mirror: e.mirror(),
			Capabilities: e.can.names(), Unchecked: e.open, Login: login, LoginError: err,
		})
	}
	return s, nil
}

// names lists capabilities as hosts.toml calls them.
func (c capability) names() []string {
	var names []string
	for i, name := range []string{"pull", "resolve", "push"} {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}
