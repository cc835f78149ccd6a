package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/ref"
)

// dial makes the client of a registry, and returns how to give its connections back.
func dial(r ref.Ref, o RegistryOptions) (*client, func(), error) {
	t := newTransport(o, new(artifact.Counters))
	c, err := newClient(r, o, t, func(text string) { o.Log.Warn(text, "image", r.String()) })
	if err != nil {
		return nil, nil, err
	}
	return c, t.CloseIdleConnections, nil
}

// Exists says whether an image is there. A registry is asked for the manifest's headers only; in local places the
// manifest is read. Nothing is verified. Whatever is neither yes nor no is an error: ErrDenied, ErrRegistry.
func Exists(ctx context.Context, r ref.Ref, o Options) (bool, error) {
	o = o.withDefaults()
	err := lookFor(ctx, r, o)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, artifact.ErrNotFound):
		return false, nil
	}
	return false, fmt.Errorf("%s: %w", clip(r.String(), maxWords), err)
}

func lookFor(ctx context.Context, r ref.Ref, o Options) error {
	if r.Kind() == ref.Registry {
		return lookRemote(ctx, r, o)
	}
	src := local.Open(r, "", new(artifact.Counters))
	if src == nil {
		return errZero
	}
	_, err := src.Root(ctx)
	return err
}

func lookRemote(ctx context.Context, r ref.Ref, o Options) error {
	if o.Registry.Offline {
		return ErrOffline
	}
	c, idle, err := dial(r, o.Registry)
	if err != nil {
		return err
	}
	defer idle()
	name := r.Tag()
	if r.Pinned() {
		name = artifact.WireDigest(r.Digest()).String()
	}
	retry := retrier{policy: c.policy}
	for {
		resp, err := c.do(ctx, call{method: http.MethodHead, path: "manifests/" + name, header: http.Header{"Accept": {accepted}}, check: manifestAnswer})
		if err == nil {
			finish(resp)
			return nil
		}
		if err = retry.again(ctx, err); err != nil {
			return err
		}
	}
}
