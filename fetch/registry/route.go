package registry

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// dockerCerts is where Docker keeps the certificates of hosts.
const dockerCerts = "/etc/docker/certs.d"

// mirrorDial is how long a dial to a mirror may take where hosts.toml does not say: a host that is
// there answers the second repeat of a SYN, after 3 s, and another host can be asked.
const mirrorDial = 5 * time.Second

// route are the endpoints of a reference in the order in which they are asked.
type route []*endpoint

// serving returns the endpoints that may be asked for something, without the first skip of the
// route unless no other is left. Uploads all go to one.
func (r route) serving(need capability, skip int) []*endpoint {
	var may []*endpoint
	left := 0 // of may, endpoints behind skip
	for i, e := range r {
		if e.can&need != 0 {
			may = append(may, e)
			if i >= skip {
				left++
			}
		}
	}
	if need == canPush {
		return may[:min(1, len(may))]
	}
	if len(may) > 0 {
		may = may[len(may)-max(1, left):]
	}
	return may
}

// after is how many endpoints to skip so that e is not asked again.
func (r route) after(e *endpoint) int { return slices.Index(r, e) + 1 }

// planner makes a route from what the user and the administrator say.
type planner struct {
	name string // of the registry, as references have it
	own  *endpoint
	o    Options
	t    *transport
	warn func(string)
}

// plan returns the endpoints of a registry: those of hosts.toml in its order, the registry itself
// last.
func (p planner) plan() (route, error) {
	if p.o.Offline {
		return route{p.own}, nil // no host will be asked
	}
	dir := hostsFolder(p.o.TLS.HostsDir, p.name)
	if dir == "" {
		return route{p.own}, p.equip(p.own, certs{}, 0)
	}
	file, err := readHosts(dir, p.warn)
	if err != nil {
		return nil, err
	}
	if file == nil {
		c, err := certFolder(dir, p.warn)
		if err != nil {
			return nil, err
		}
		return route{p.own}, p.equip(p.own, c, 0)
	}
	var r route
	for _, key := range append(file.order, file.Server) {
		table := file.Host[key]
		if len(r) == len(file.order) {
			table = file.hostTable
		}
		e, err := p.endpoint(key, table)
		if err != nil {
			return nil, err
		}
		if len(r) == len(file.order) && slices.ContainsFunc(r, e.same) {
			break // the registry itself is among the hosts
		}
		if err := p.equip(e, table.certs(dir), time.Duration(table.DialTimeout)); err != nil {
			return nil, err
		}
		r = append(r, e)
	}
	return r, nil
}

// endpoint makes an endpoint of a table; without a key it is the registry itself, which is found as
// without a file.
func (p planner) endpoint(key string, table hostTable) (*endpoint, error) {
	e := ownEndpoint(p.own.host)
	if key != "" {
		var err error
		if e, err = table.place(key); err != nil {
			return nil, err
		}
		if strings.TrimSuffix(e.host, ":443") == strings.TrimSuffix(p.own.host, ":443") {
			e.host = p.own.host
		} else {
			e.ns = p.name
		}
	}
	table.fill(e)
	return e, nil
}

// equip gives an endpoint its certificates and time-outs. The command line's authorities are for
// all, its client certificate and what Docker keeps only for the registry itself.
func (p planner) equip(e *endpoint, c certs, dial time.Duration) error {
	if p.o.TLS.CAFile != "" {
		c.roots = append(c.roots, p.o.TLS.CAFile)
	}
	if e.mirror() {
		if dial == 0 {
			dial = mirrorDial
		}
	} else {
		if p.o.TLS.ClientCert != "" {
			c.clients = slices.Insert(c.clients, 0, keyPair{p.o.TLS.ClientCert, p.o.TLS.ClientKey})
		}
		docker, err := certFolder(filepath.Join(p.o.TLS.DockerDir, p.name), p.warn)
		if err != nil {
			return err
		}
		c.roots, c.clients = append(c.roots, docker.roots...), append(c.clients, docker.clients...)
	}
	e.secure = !c.empty()
	base, ok := p.t.base.(*http.Transport)
	if !ok || c.empty() && dial == 0 {
		return nil
	}
	conf, err := c.config()
	if err != nil {
		return err
	}
	base = base.Clone()
	if !c.empty() {
		base.TLSClientConfig = conf
	}
	if dial > 0 {
		base.DialContext = dialIn(base.DialContext, dial)
	}
	p.t.special, e.base = append(p.t.special, base), base
	return nil
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialIn bounds the time of a dial.
func dialIn(dial dialFunc, limit time.Duration) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return dial(ctx, network, addr)
	}
}
