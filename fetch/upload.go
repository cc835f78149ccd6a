package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// upload is one blob to bring to the registry.
type upload struct {
	what   string // for messages
	digest wireDigest
	size   int64 // bytes
	open   func(ctx context.Context) (io.ReadCloser, error)
}

// put brings one blob to the registry, unless it is there. A try that failed starts over with the question whether it
// is there: the answer to it may have been lost, not the blob.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
func (p *pusher) put(ctx context.Context, u upload) error {
	retry := retrier{policy: p.c.policy}
	for {
		err := p.try(ctx, u)
		if err == nil {
			return nil
		}
		if err = retry.again(ctx, err); err != nil {
			return fmt.Errorf("%s (layer %s): %w", u.what, u.digest, err)
		}
	}
}

func (p *pusher) try(ctx context.Context, u upload) error {
	there, err := p.there(ctx, u)
	if err != nil {
		return err
	}
	if there {
		p.meter.skip(u.size)
		return nil
	}
	resp, err := p.c.do(ctx, call{method: http.MethodPost, path: "blobs/uploads/"})
	if err != nil {
		return err
	}
	finish(resp)
	if resp.StatusCode != http.StatusAccepted {
		return &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule,
			text: fmt.Sprintf("status %d to the start of an upload, not 202", resp.StatusCode),
		}
	}
	at, err := location(resp)
	if err != nil {
		return err
	}
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	at.RawQuery += "digest=" + u.digest.String() // what was there stays as it is: it may be signed
	body := &uploadBody{ctx: ctx, from: u, meter: p.meter}
	resp, err = p.c.do(ctx, call{
		method: http.MethodPut, at: at, size: u.size, body: body.open,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
	if err != nil {
		return body.judge(err)
	}
	finish(resp)
	body.whole()
	p.meter.copy(u.size)
	return nil
}

// there asks whether the registry has a blob. An answer to HEAD has no words, so a refusal is left to the upload, which
// says why.
func (p *pusher) there(ctx context.Context, u upload) (bool, error) {
	resp, err := p.c.do(ctx, call{method: http.MethodHead, path: "blobs/" + u.digest.String()})
	var status *statusError
	switch {
	case err == nil:
		finish(resp)
		return resp.ContentLength <= 0 || resp.ContentLength == u.size, nil
	case errors.As(err, &status) && status.code/100 == 4 && !retriable(err):
		return false, nil
	}
	return false, err
}

// putManifest makes the image visible under its tag.
func (p *pusher) putManifest(ctx context.Context) error {
	name := p.dst.tag
	if name == "" {
		name = pfimg.Digest(hashOf(p.manifest)).String()
	}
	retry := retrier{policy: p.c.policy}
	for {
		resp, err := p.c.do(ctx, call{
			method: http.MethodPut, path: "manifests/" + name, size: int64(len(p.manifest)),
			body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.manifest)), nil },
			header: http.Header{"Content-Type": {mediaTypeManifest}},
		})
		if err == nil {
			finish(resp)
			return nil
		}
		if err = retry.again(ctx, err); err != nil {
			return fmt.Errorf("OCI manifest: %w", err)
		}
	}
}

// finish reads the rest of an answer that is of no interest, so that the connection can be used again.
func finish(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
	_ = resp.Body.Close()
}

// uploadBody counts what of a blob was sent. A blob that is sent again counts from the start.
type uploadBody struct {
	ctx   context.Context
	from  upload
	meter *Meter

	mu   sync.Mutex // guards the fields below: an old body may still be read when the next is opened
	last *sending
	err  error // of the blob's own bytes
}

// sending is one reading of the blob.
type sending struct {
	io.ReadCloser
	body *uploadBody
	n    int64
}

func (b *uploadBody) open() (io.ReadCloser, error) {
	from, err := b.from.open(b.ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop()
	if err != nil {
		b.err = err
		return nil, err
	}
	b.last = &sending{ReadCloser: from, body: b}
	return b.last, nil
}

// drop takes back what was counted.
func (b *uploadBody) drop() {
	if b.last != nil {
		b.meter.bytes.Add(-b.last.n)
		b.last = nil
	}
}

func (s *sending) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	b := s.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == s {
		s.n += int64(n)
		b.meter.bytes.Add(int64(n))
		if err != nil && err != io.EOF && b.ctx.Err() == nil {
			b.err = err
		}
	}
	return n, err
}

// judge takes back the count, and blames the source when it was its bytes that could not be read.
func (b *uploadBody) judge(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop()
	if b.err != nil {
		return final{b.err}
	}
	return err
}

// whole counts all of the blob: a registry may answer before the last byte was read.
func (b *uploadBody) whole() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop()
	b.meter.bytes.Add(b.from.size)
}
