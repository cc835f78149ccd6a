package registry

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// TestProxies: an invalid proxy is an error that names the variable, and no request goes past it.
func TestProxies(t *testing.T) {
	tests := []struct {
		vars []string
		bad  string // the variable in the error; "": none
	}{
		{nil, ""},
		{[]string{"HTTPS_PROXY", "http://u:p@proxy:3128"}, ""},
		{[]string{"HTTPS_PROXY", "proxy:3128"}, ""},
		{[]string{"HTTPS_PROXY", "proxy"}, ""},
		{[]string{"HTTPS_PROXY", "socks5h://proxy:1080", "HTTP_PROXY", "https://proxy"}, ""},
		{[]string{"HTTPS_PROXY", "http://[S3CRET"}, "HTTPS_PROXY"},
		{[]string{"https_proxy", "u:S3CRET"}, "https_proxy"},
		{[]string{"HTTP_PROXY", "odd://u:S3CRET@proxy"}, "HTTP_PROXY"},
		{[]string{"http_proxy", "http://u:S3CRET@"}, "http_proxy"},
		{[]string{"HTTP_PROXY", "http://u:S3CRET@proxy:x"}, "HTTP_PROXY"},
		{[]string{"HTTPS_PROXY", "proxy:3128", "https_proxy", "odd://S3CRET"}, ""}, // net/http looks at the first
		{[]string{"HTTPS_PROXY", "proxy:3128", "HTTP_PROXY", "http://S3CRET proxy/"}, "HTTP_PROXY"},
	}
	for _, tt := range tests {
		f := registrytest.NewServer(t)
		f.Serve(t)
		o := quickOptions()
		o.Login.Getenv = registrytest.Env(tt.vars...)
		im, err := openImage(context.Background(), f.Ref(t), o)
		if err == nil {
			im.Close()
		}
		if tt.bad == "" {
			if err != nil {
				t.Errorf("%q: got %v", tt.vars, err)
			}
			continue
		}
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.bad) ||
			strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%q: got %v, want ErrConfig that names %s", tt.vars, err, tt.bad)
		}
		if n := f.Count("*"); n != 0 {
			t.Errorf("%q: %d requests were sent", tt.vars, n)
		}
	}
}
