package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/sched"
)

// What is fetched before the signed manifest says that it is part of the image: the blobs which
// that manifest names itself. They are the first layers of an artifact, in a known order, less
// those that occurred before.
const (
	maxPreloadLayer = 1 << 20  // stored bytes of each
	maxPreload      = 32 << 20 // stored bytes of all
)

// Preload is called while an image is opened, when the OCI manifest is there and before config and
// signature are, with each blob that the signed manifest probably names. It says whether the
// blob's stored bytes are wanted. They wait in memory as they come: they are decoded by
// Image.Blob alone, when Open has returned, with the bounds of any other blob.
type Preload func(pfimg.Digest) bool

// early is a Source that hands out, once each, the stored bytes of layers which were asked for
// before the signature was verified.
type early struct {
	artifact.Source
	limiter *sched.Limiter // of its requests

	mu     sync.Mutex // guards layers
	layers map[artifact.WireDigest]*earlyLayer
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

// preload begins to fetch the stored bytes of the first layers that are wanted. The end of use ends
// it.
func (s *early) preload(use *usage, wanted Preload, r *artifact.Root) {
	seen := make(map[pfimg.Digest]bool)
	budget := int64(maxPreload)
	for _, l := range r.OCI.First {
		if l.Size > min(maxPreloadLayer, budget) || seen[l.Logical] {
			continue
		}
		seen[l.Logical] = true
		if !wanted(l.Logical) {
			continue
		}
		ctx, end, err := use.begin(context.Background())
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		e := &earlyLayer{done: make(chan struct{}), cancel: cancel}
		if !s.add(l.Wire, e) {
			cancel()
			end()
			continue
		}
		budget -= l.Size
		go func() {
			defer end()
			defer cancel()
			defer close(e.done)
			e.fetch(ctx, s.Source, l)
		}()
	}
}

// fetch reads a layer's stored bytes, no more than its descriptor says.
func (e *earlyLayer) fetch(ctx context.Context, src artifact.Source, l artifact.Layer) {
	from, err := src.Read(ctx, l, 0)
	if err != nil {
		e.err = err
		return
	}
	defer func() { _ = from.Close() }()
	e.from, e.net = from.From, from.Net
	e.wire = make([]byte, l.Size)
	if n, err := io.ReadFull(from, e.wire); err != nil {
		e.wire, e.err = nil, err
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			text := fmt.Sprintf("%d stored bytes, not %d", n, l.Size)
			e.err = &artifact.WrongBytes{Text: text, From: from.From()}
		}
	}
}

// add notes a layer, unless it is there.
func (s *early) add(d artifact.WireDigest, e *earlyLayer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layers == nil {
		s.layers = make(map[artifact.WireDigest]*earlyLayer)
	}
	if s.layers[d] != nil {
		return false
	}
	s.layers[d] = e
	return true
}

// claim takes a layer out, nil when there is none.
func (s *early) claim(d artifact.WireDigest) *earlyLayer {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.layers[d]
	delete(s.layers, d)
	return e
}

// drop ends and forgets the layers that were not claimed.
func (s *early) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.layers {
		e.cancel()
	}
	clear(s.layers)
}

// Read returns the stored bytes of a layer: once those that came early, and else the source's.
func (s *early) Read(ctx context.Context, l artifact.Layer, wrong int) (*artifact.Stored, error) {
	if wrong > 0 || !l.Hashed() {
		return s.Source.Read(ctx, l, wrong)
	}
	e := s.claim(l.Wire)
	if e == nil {
		return s.Source.Read(ctx, l, wrong)
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
	case int64(len(e.wire)) != l.Size: // another descriptor of the same digest
		return s.Source.Read(ctx, l, wrong)
	}
	body := io.NopCloser(bytes.NewReader(e.wire))
	return &artifact.Stored{ReadCloser: body, Size: l.Size, Net: e.net, From: e.from}, nil
}
