package fetch

import (
	"fmt"
	"net/url"
	"strings"
)

// proxyVars are the variables that net/http takes a proxy from; of each line the first that is set counts.
var proxyVars = [][]string{{"HTTPS_PROXY", "https_proxy"}, {"HTTP_PROXY", "http_proxy"}}

// checkProxies refuses a proxy that is none. net/http would go without it, past whoever wants all traffic to pass there.
// The value may hold a password, so the error names the variable only.
func checkProxies(getenv func(string) string) error {
	for _, names := range proxyVars {
		for _, name := range names {
			value := getenv(name)
			if value == "" {
				continue
			}
			if !isProxy(value) {
				return fmt.Errorf("%s: it is not the address of a proxy, such as http://HOST:PORT: %w", name, ErrConfig)
			}
			break
		}
	}
	return nil
}

// isProxy says that net/http can use a proxy; it puts http:// before what has no scheme.
func isProxy(value string) bool {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return false
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return true
	}
	return false
}
