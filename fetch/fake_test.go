package fetch

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

const hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// fastRetry is defaultRetry with waits that a test can bear.
func fastRetry() retryPolicy {
	p := defaultRetry()
	p.base, p.ceiling, p.probe = time.Millisecond, 4*time.Millisecond, 20*time.Millisecond
	return p
}

func testOptions() Options {
	return Options{Registry: RegistryOptions{Login: LoginOptions{Getenv: registrytest.NoEnv}, StallTimeout: 30 * time.Second, Retry: fastRetry()}}
}

func mustOpen(t testing.TB, r ref.Ref, o Options) *Image {
	t.Helper()
	im, err := Open(context.Background(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = im.Close() })
	return im
}

// get asks for /v2/<repo>/<path>. Any answer but 200, 206 and 416 is an error.
func (c *client) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	return c.do(ctx, call{method: http.MethodGet, path: path, header: header})
}
