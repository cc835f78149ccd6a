package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/local"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/fetch/safetext"
)

// Exists says whether an image is there. A registry is asked for the manifest's headers only; in
// local places the manifest is read. Nothing is verified. Whatever is neither yes nor no is an
// error: ErrDenied, ErrRegistry.
func Exists(ctx context.Context, r ref.Ref, o Options) (bool, error) {
	o = o.withDefaults()
	err := lookFor(ctx, r, o)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, artifact.ErrNotFound):
		return false, nil
	}
	return false, fmt.Errorf("%s: %w", safetext.Clip(r.String(), maxName), err)
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
	repo, err := registry.Open(r, o.Registry, registry.OpenOptions{})
	if err != nil {
		return err
	}
	defer repo.Close()
	return repo.Exists(ctx)
}
