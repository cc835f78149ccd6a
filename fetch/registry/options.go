package registry

import (
	"log/slog"
	"os"
	"time"

	"github.com/pfmount/pfmount/fetch/registry/cred"
)

// Options say how a registry is reached. The zero value is usable.
type Options struct {
	Log          *slog.Logger  // nil: nothing is logged
	Version      string        // for the User-Agent pfmount/VERSION
	Offline      bool          // never ask a registry
	PlainHTTP    bool          // registries speak plain HTTP, and may have credentials over it
	StallTimeout time.Duration // a request that brings nothing for so long fails; 0: 30 s
	MaxConns     int           // requests at once to a host; 0: 32
	Login        LoginOptions
	TLS          TLSOptions
	Retry        RetryPolicy // zero: the default
}

// LoginOptions say where credentials come from.
type LoginOptions = cred.Options

// TLSOptions say which certificates and hosts a registry may have.
type TLSOptions struct {
	CAFile     string // PEM authorities that registries may have, beside the system's
	ClientCert string // PEM certificate to show the registry; with its key, or ClientKey has it
	ClientKey  string // PEM
	HostsDir   string // containerd's folder of hosts.toml files; "": none
	DockerDir  string // docker's folder of certificates; "": /etc/docker/certs.d
}

// WithDefaults returns o with what is zero replaced by what that stands for.
func (o Options) WithDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Login.Getenv == nil {
		o.Login.Getenv = os.Getenv
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 32
	}
	if o.TLS.DockerDir == "" {
		o.TLS.DockerDir = dockerCerts
	}
	if o.Retry == (RetryPolicy{}) {
		o.Retry = DefaultRetry()
	}
	return o
}
