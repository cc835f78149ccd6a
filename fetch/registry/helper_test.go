package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry/cred"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

// testImage is an image whose signature was not looked at: its repository and its blobs.
type testImage struct {
	*Repository
	reader   *artifact.Reader
	decoders *artifact.Decoders
	traffic  *artifact.Counters
}

// openImage opens the image of a reference.
func openImage(ctx context.Context, r ref.Ref, o Options) (*testImage, error) {
	o = o.WithDefaults()
	im := &testImage{traffic: new(artifact.Counters), decoders: artifact.NewDecoders(o.MaxConns)}
	var err error
	if im.Repository, err = Open(r, o, OpenOptions{Traffic: im.traffic}); err != nil {
		return nil, err
	}
	root, err := im.Root(ctx)
	if err != nil {
		im.Close()
		return nil, err
	}
	im.reader = artifact.NewReader(artifact.Config{
		Image: r.String(), Log: o.Log, MaxBlob: 4 << 30, Decoders: im.decoders,
	}, im.Repository, root)
	return im, nil
}

// mustOpenImage opens an image until the test ends.
func mustOpenImage(t testing.TB, r ref.Ref, o Options) *testImage {
	t.Helper()
	im, err := openImage(context.Background(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		im.Close()
		im.decoders.Close()
	})
	return im
}

// Digest returns the digest of the OCI manifest.
func (im *testImage) Digest() string { return im.reader.Root().Digest }

// Blob writes a blob's decoded bytes to w.
func (im *testImage) Blob(ctx context.Context, d pfimg.Digest, size int64, w artifact.Sink) error {
	return im.reader.Blob(ctx, d, size, w)
}

// quickOptions wait as long as a test can bear.
func quickOptions() Options {
	p := DefaultRetry()
	p.Base, p.Ceiling, p.Probe = time.Millisecond, 4*time.Millisecond, 20*time.Millisecond
	return Options{
		Log:   slog.New(slog.DiscardHandler),
		Login: cred.Options{Getenv: registrytest.NoEnv}, StallTimeout: 30 * time.Second, Retry: p,
	}
}

// existsAt asks whether the manifest of a reference is there.
func existsAt(ctx context.Context, r ref.Ref, o Options) (bool, error) {
	repo, err := Open(r, o, OpenOptions{})
	if err != nil {
		return false, err
	}
	defer repo.Close()
	if err = repo.Exists(ctx); errors.Is(err, artifact.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// manyBlobs returns n small blobs, no two alike.
func manyBlobs(n int) (parts []registrytest.Layer) {
	for i := range n {
		parts = append(parts, registrytest.Layer{Content: fmt.Appendf(nil, "content %d", i)})
	}
	return parts
}

// readAll reads all parts at once and returns an error for each that failed.
func readAll(im *testImage, parts []registrytest.Layer) (failed []error) {
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() {
			errs[i] = im.Blob(context.Background(), p.Logical(), int64(len(p.Content)),
				&registrytest.Buffer{})
		})
	}
	wg.Wait()
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}
