package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// unnamedBlobs is how many blobs of Options.MaxBlobSize may be decoded to nothing in search of another.
const unnamedBlobs = 16

// unnamedLayers are the layers that do not say which blob they are. They are decoded, in order and each once, when a
// signed digest has no layer of its own, until one turns out to be it.
type unnamedLayers struct {
	im   *Image
	lock chan struct{} // held over the fields below and over a look; a channel, so that waiting ends with the context

	next   int // the first layer that was not looked at
	layers []layer
	known  map[pfimg.Digest]layer
	budget int64 // decoded bytes that may still be spent on looking
}

func newUnnamed(im *Image, m *ociManifest) *unnamedLayers {
	u := &unnamedLayers{im: im, lock: make(chan struct{}, 1), known: map[pfimg.Digest]layer{}}
	u.budget = unnamedBlobs * im.options.MaxBlobSize
	if m != nil {
		u.layers = m.unnamed
	}
	return u
}

// wire answers Image.Wire.
func (u *unnamedLayers) wire(d pfimg.Digest) (wire, decoded int64, ok bool) {
	if len(u.layers) == 0 {
		return 0, -1, false
	}
	select {
	case u.lock <- struct{}{}:
		defer func() { <-u.lock }()
	default:
		return -1, -1, true // somebody is looking just now
	}
	if l, ok := u.known[d]; ok {
		return l.size, l.decoded, true
	}
	if u.next < len(u.layers) {
		return -1, -1, true
	}
	return 0, -1, false
}

// find returns the layer that decodes to d.
func (u *unnamedLayers) find(ctx context.Context, d pfimg.Digest) (layer, error) {
	if len(u.layers) == 0 {
		return layer{}, ErrMissing
	}
	select {
	case u.lock <- struct{}{}:
		defer func() { <-u.lock }()
	case <-ctx.Done():
		return layer{}, context.Cause(ctx)
	}
	for {
		if l, ok := u.known[d]; ok {
			return l, nil
		}
		if u.next >= len(u.layers) {
			return layer{}, fmt.Errorf("no layer names it, and none of the %d that name nothing is it: %w", len(u.layers), ErrMissing)
		}
		if err := u.look(ctx); err != nil {
			return layer{}, err
		}
	}
}

// look decodes the next layer to nothing, to learn its digest. A layer that does not decode is nobody's. An error is
// one of the network: that layer is looked at again next time.
func (u *unnamedLayers) look(ctx context.Context) error {
	l := u.layers[u.next]
	if u.budget <= 0 {
		return fmt.Errorf("layers that name no blob decode to more than %d bytes: %w",
			unnamedBlobs*u.im.options.MaxBlobSize, ErrMissing)
	}
	var n int64
	var got pfimg.Digest
	var err error
	if l.size > maxWire(u.budget) {
		err = fmt.Errorf("%d stored bytes for at most %d decoded ones: %w", l.size, u.budget, pfimg.ErrIntegrity)
	}
	for _, big := range []bool{false, true} {
		if err != nil && !errors.Is(err, errBigWindow) {
			break
		}
		n, got, err = u.im.stream(ctx, pass{layer: l, limit: u.budget, big: big}, io.Discard)
		u.budget -= n
		if !errors.Is(err, errBigWindow) {
			break
		}
	}
	switch {
	case err == nil:
		l.logical = got
		if _, ok := u.known[got]; !ok {
			u.known[got] = l
		}
	case errors.Is(err, pfimg.ErrIntegrity):
		u.im.options.Log.Warn("a layer that names no blob is damaged", "image", u.im.ref.String(), "layer", l.wire.String(), "cause", err)
	default:
		return fmt.Errorf("layer %s, which names no blob: %w", l.wire, err)
	}
	u.next++
	return nil
}
