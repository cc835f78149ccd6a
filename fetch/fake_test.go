package fetch

import (
	"context"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

const hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// fastRetry is defaultRetry with waits that a test can bear.
func fastRetry() registry.RetryPolicy {
	p := registry.DefaultRetry()
	p.Base, p.Ceiling, p.Probe = time.Millisecond, 4*time.Millisecond, 20*time.Millisecond
	return p
}

func testOptions() Options {
	return Options{Registry: registry.Options{Login: registry.LoginOptions{Getenv: registrytest.NoEnv}, StallTimeout: 30 * time.Second, Retry: fastRetry()}}
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
