package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// What is fetched before the signed manifest says that it is part of the image: the blobs which
// that manifest names itself. They are the first layers of an artifact, in a known order, less
// those that occurred before.
const (
	maxLikely      = 8        // layers
	maxLikelyBytes = 1 << 20  // stored bytes of each
	maxEarlyBytes  = 32 << 20 // stored bytes of all
)

// Likely is called while an image is opened, when the OCI manifest is there and before config and
// signature are, with each blob that the signed manifest probably names. It says whether the
// blob's stored bytes are wanted. They wait in memory as they come: they are decoded by
// Image.Blob alone, when Open has returned, with the bounds of any other blob.
type Likely func(pfimg.Digest) bool

// early are the stored bytes of layers that were asked for before the signature was verified.
type early struct {
	mu     sync.Mutex // guards layers
	layers map[wireDigest]*earlyLayer
}

// earlyLayer is one layer. Its fields are set before done closes.
type earlyLayer struct {
	done   chan struct{}
	cancel context.CancelFunc
	wire   []byte
	from   func() string
	net    bool
	err    error
}

// likely begins to fetch the stored bytes of the likely layers. Close ends it.
func (im *Image) likely(r *root) {
	seen := make(map[pfimg.Digest]bool)
	budget := int64(maxEarlyBytes)
	for _, l := range r.oci.first {
		if l.size > min(maxLikelyBytes, budget) || seen[l.logical] {
			continue
		}
		seen[l.logical] = true
		if !im.options.Likely(l.logical) {
			continue
		}
		ctx, end, err := im.use.begin(context.Background())
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		e := &earlyLayer{done: make(chan struct{}), cancel: cancel}
		if !im.early.add(l.wire, e) {
			cancel()
			end()
			continue
		}
		budget -= l.size
		go func() {
			defer end()
			defer cancel()
			defer close(e.done)
			e.fetch(ctx, im.src, l)
		}()
	}
}

// fetch reads a layer's stored bytes, no more than its descriptor says.
func (e *earlyLayer) fetch(ctx context.Context, src source, l layer) {
	from, err := src.read(ctx, l, 0)
	if err != nil {
		e.err = err
		return
	}
	defer func() { _ = from.Close() }()
	e.from, e.net = from.from, from.net
	e.wire = make([]byte, l.size)
	if n, err := io.ReadFull(from, e.wire); err != nil {
		e.wire, e.err = nil, err
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			e.err = &wrongBytes{text: fmt.Sprintf("%d stored bytes, not %d", n, l.size), from: from.from()}
		}
	}
}

// add notes a layer, unless it is there.
func (s *early) add(d wireDigest, e *earlyLayer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layers == nil {
		s.layers = make(map[wireDigest]*earlyLayer)
	}
	if s.layers[d] != nil {
		return false
	}
	s.layers[d] = e
	return true
}

// claim takes a layer out, nil when there is none.
func (s *early) claim(d wireDigest) *earlyLayer {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.layers[d]
	delete(s.layers, d)
	return e
}

// DropEarly ends and forgets what was fetched before the signature and that no Blob has asked for.
func (im *Image) DropEarly() {
	im.early.mu.Lock()
	defer im.early.mu.Unlock()
	for _, e := range im.early.layers {
		e.cancel()
	}
	clear(im.early.layers)
}

// read returns the stored bytes of a layer: once those that came early, and else the source's.
func (im *Image) read(ctx context.Context, l layer, wrong int) (*stored, error) {
	if wrong > 0 || !l.hashed() {
		return im.src.read(ctx, l, wrong)
	}
	e := im.early.claim(l.wire)
	if e == nil {
		return im.src.read(ctx, l, wrong)
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		e.cancel()
		return nil, context.Cause(ctx)
	}
	switch {
	case e.err != nil:
		return nil, e.err
	case int64(len(e.wire)) != l.size: // another descriptor of the same digest
		return im.src.read(ctx, l, wrong)
	}
	body := io.NopCloser(bytes.NewReader(e.wire))
	return &stored{ReadCloser: body, size: l.size, net: e.net, from: e.from}, nil
}
