package registry

import (
	"fmt"
	"net/url"
	"strings"
)

// proxyVars are the variables that net/http takes a proxy from; of each line the first that is set
// counts.
var proxyVars = [][]string{{"HTTPS_PROXY", "https_proxy"}, {"HTTP_PROXY", "http_proxy"}}

// Proxies returns the proxies of the environment by the variables that name them, without users and
// passwords. A value that is no proxy is an error: net/http would go without it, past the
// proxy that all traffic is meant for. The value may hold a password: the error names the variable.
func Proxies(getenv func(string) string) (map[string]string, error) {
	found := map[string]string{}
	for _, names := range proxyVars {
		for _, name := range names {
			value := getenv(name)
			if value == "" {
				continue
			}
			u := proxyURL(value)
			if u == nil {
				return found, fmt.Errorf("%s: it is not the address of a proxy, "+
					"such as http://HOST:PORT: %w", name, ErrConfig)
			}
			found[name] = u.Scheme + "://" + clip(u.Host, 255)
			break
		}
	}
	return found, nil
}

// proxyURL reads a proxy that net/http can use, which puts http:// before what has no scheme; nil:
// it is none.
func proxyURL(value string) *url.URL {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return u
	}
	return nil
}
