package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// unlabelledBlobs is how many blobs of Config.MaxBlob may be decoded to nothing in search of
// another.
const unlabelledBlobs = 16

// unlabelledLayers are the layers that do not say which blob they are. They are decoded, in order
// and each once, when a signed digest has no layer of its own, until one turns out to be it.
type unlabelledLayers struct {
	r *Reader
	// held over the fields below and over a look; a channel, so that waiting ends with the context
	lock chan struct{}

	next   int // the first layer that was not looked at
	layers []Layer
	known  map[pfimg.Digest]Layer
	budget int64 // decoded bytes that may still be spent on looking
}

func newUnlabelled(r *Reader, m *Manifest) *unlabelledLayers {
	u := &unlabelledLayers{r: r, lock: make(chan struct{}, 1), known: map[pfimg.Digest]Layer{}}
	u.budget = unlabelledBlobs * r.MaxBlob
	if m != nil {
		u.layers = m.Unlabelled
	}
	return u
}

// wire answers Image.Wire.
func (u *unlabelledLayers) wire(d pfimg.Digest) (wire, decoded int64, ok bool) {
	if len(u.layers) == 0 {
		return 0, -1, false
	}
	select {
	case u.lock <- struct{}{}:
		defer func() { <-u.lock }()
	default:
		return -1, -1, true // a look is under way
	}
	if l, ok := u.known[d]; ok {
		return l.Size, l.Decoded, true
	}
	if u.next < len(u.layers) {
		return -1, -1, true
	}
	return 0, -1, false
}

// find returns the layer that decodes to d.
func (u *unlabelledLayers) find(ctx context.Context, d pfimg.Digest) (Layer, error) {
	if len(u.layers) == 0 {
		return Layer{}, ErrMissing
	}
	select {
	case u.lock <- struct{}{}:
		defer func() { <-u.lock }()
	case <-ctx.Done():
		return Layer{}, context.Cause(ctx)
	}
	for {
		if l, ok := u.known[d]; ok {
			return l, nil
		}
		if u.next >= len(u.layers) {
			return Layer{}, fmt.Errorf(
				"no layer names it, and none of the %d that name nothing is it: %w", len(u.layers),
				ErrMissing)
		}
		if err := u.look(ctx); err != nil {
			return Layer{}, err
		}
	}
}

// look decodes the next layer to nothing, to learn its digest. A layer that does not decode is
// no blob's. An error is one of the network: that layer is looked at again next time.
func (u *unlabelledLayers) look(ctx context.Context) error {
	l := u.layers[u.next]
	if u.budget <= 0 {
		return fmt.Errorf("layers that name no blob decode to more than %d bytes: %w",
			unlabelledBlobs*u.r.MaxBlob, ErrMissing)
	}
	var n int64
	var got pfimg.Digest
	var err error
	if l.Size > maxWire(u.budget) {
		err = fmt.Errorf("%d stored bytes for at most %d decoded ones: %w", l.Size, u.budget,
			pfimg.ErrIntegrity)
	}
	for _, big := range []bool{false, true} {
		if err != nil && !errors.Is(err, errBigWindow) {
			break
		}
		n, got, err = u.r.stream(ctx, pass{layer: l, limit: u.budget, big: big}, io.Discard)
		u.budget -= n
		if !errors.Is(err, errBigWindow) {
			break
		}
	}
	switch {
	case err == nil:
		l.Logical = got
		if _, ok := u.known[got]; !ok {
			u.known[got] = l
		}
	case errors.Is(err, pfimg.ErrIntegrity):
		u.r.Log.Warn("a layer that names no blob is damaged", "image", u.r.Image, "layer",
			l.Wire.String(), "cause", err)
	default:
		return fmt.Errorf("layer %s, which names no blob: %w", l.Wire, err)
	}
	u.next++
	return nil
}
