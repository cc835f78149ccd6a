package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/ref"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Progress is told how an upload goes. Its methods are called by several goroutines at once.
type Progress interface {
	Stored(n int64)     // bytes of a blob were sent; less than 0: they are sent again
	Copied(size int64)  // a blob was uploaded
	Skipped(size int64) // a blob was there already
}

// Uploader brings the parts of one image to a repository.
type Uploader struct {
	c        *client
	repo     string
	sources  *mountSources // where the registry may have blobs already
	progress Progress
	chunked  atomic.Bool // a blob did not pass whole
	close    func()
}

// NewUploader returns an uploader to the repository of dst. Before it uploads a blob, it asks the
// registry to take it from the repositories mountFrom. The caller must close it.
func NewUploader(dst ref.Ref, o Options, mountFrom []string, p Progress) (*Uploader, error) {
	repo, err := Open(dst, o, OpenOptions{})
	if err != nil {
		return nil, err
	}
	repo.c.write = true
	return &Uploader{
		c: repo.c, repo: dst.Repo(), sources: &mountSources{repos: mountFrom}, progress: p,
		close: repo.Close,
	}, nil
}

// Close gives idle connections back.
func (up *Uploader) Close() { up.close() }

// Blob is one blob to bring to the registry.
type Blob struct {
	What   string // for messages
	Digest artifact.WireDigest
	Size   int64 // bytes
	Open   func(ctx context.Context) (io.ReadCloser, error)
}

// from returns the blob's bytes from off on.
func (u Blob) from(ctx context.Context, off int64) (io.ReadCloser, error) {
	r, err := u.Open(ctx)
	if err != nil || off == 0 {
		return r, err
	}
	var seeker io.Seeker
	if s, ok := r.(*artifact.Stored); ok {
		seeker, _ = s.ReadCloser.(io.Seeker)
	}
	if seeker != nil {
		_, err = seeker.Seek(off, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, r, off)
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// Upload brings one blob to the registry, unless it is there. A try that failed starts over with
// the question whether it is there: the answer to it may have been lost, not the blob.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
func (up *Uploader) Upload(ctx context.Context, u Blob) error {
	retry := retrier{policy: up.c.policy}
	err := retry.do(ctx, func() error { return up.try(ctx, u) })
	if err != nil {
		return fmt.Errorf("%s (layer %s): %w", u.What, u.Digest, up.explainBlob(err))
	}
	return nil
}

func (up *Uploader) try(ctx context.Context, u Blob) error {
	s, err := up.start(ctx, u)
	if err == nil && s != nil && !s.chunkedFromStart() {
		if err = s.whole(ctx); err == nil || !s.mayChunk(err) {
			return err
		}
		s, err = up.start(ctx, u) // that upload is spoiled
	}
	switch {
	case err != nil:
		return err
	case s == nil:
		up.progress.Skipped(u.Size)
		return nil
	}
	return s.chunks(ctx)
}

// start opens an upload, nil when the registry has the blob: it was there, or it took it from
// another repository.
func (up *Uploader) start(ctx context.Context, u Blob) (*session, error) {
	there, err := up.there(ctx, u)
	if there || err != nil {
		return nil, err
	}
	resp, mounted, err := up.mount(ctx, u)
	if mounted || err != nil {
		return nil, err
	}
	if resp == nil {
		resp, err = up.do(ctx, call{method: http.MethodPost, path: "blobs/uploads/"})
		if err != nil {
			return nil, err
		}
		finish(resp)
	}
	if resp.StatusCode != http.StatusAccepted {
		return nil, &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule,
			text: fmt.Sprintf("status %d to the start of an upload, not 202", resp.StatusCode),
		}
	}
	s := &session{up: up, u: u, chunk: max(chunkSize, minChunk(resp.Header))}
	s.at, err = location(resp)
	return s, err
}

// mount asks the registry to take the blob from a repository that it has it in. Some answer with an
// upload instead: that answer comes back. A repository that is refused is not asked about again.
// See "Mounting a blob from another repository" in the distribution specification.
func (up *Uploader) mount(
	ctx context.Context, u Blob,
) (opened *http.Response, mounted bool, err error) {
	for _, repo := range up.sources.list() {
		scope := auth.ScopeRepository(repo, auth.ActionPull)
		rights := auth.AppendScopesForHost(ctx, up.c.api, scope)
		resp, err := up.do(rights, call{
			method: http.MethodPost, path: "blobs/uploads/", of: u.Digest,
			query: "mount=" + u.Digest.String() + "&from=" + url.QueryEscape(repo),
		})
		var status *statusError
		switch {
		case errors.Is(err, ErrDenied),
			errors.As(err, &status) && status.code/100 == 4 && !retriable(err):
			up.sources.drop(repo)
			continue
		case err != nil:
			return nil, false, err
		}
		finish(resp)
		if resp.StatusCode == http.StatusCreated {
			return nil, true, nil
		}
		opened = resp
	}
	return opened, false, nil
}

// do sends a request. The client passes on 416 as an answer to reads; here it is an error. So is a
// success that a write cannot have had.
func (up *Uploader) do(ctx context.Context, what call) (*http.Response, error) {
	resp, err := up.c.do(ctx, what)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode/100 != 2:
		err = newStatusError(resp, serverText(resp))
	case what.writes():
		err = what.proved(resp)
	}
	if err == nil {
		return resp, nil
	}
	_ = resp.Body.Close()
	return nil, err
}

// there asks whether the registry has a blob. An answer to HEAD has no words, so a refusal is left
// to the upload, which says why, and so is an answer that is not about this blob.
func (up *Uploader) there(ctx context.Context, u Blob) (bool, error) {
	resp, err := up.do(ctx, call{method: http.MethodHead, path: "blobs/" + u.Digest.String()})
	var status *statusError
	switch {
	case err == nil:
		finish(resp)
		got, named := namedDigest(resp.Header, "Docker-Content-Digest")
		page := !named && hasType(resp.Header.Get("Content-Type"), "text/html")
		other := named && got != u.Digest || resp.ContentLength > 0 && resp.ContentLength != u.Size
		return !page && !other, nil
	case errors.As(err, &status) && status.code/100 == 4 && !retriable(err):
		return false, nil
	}
	return false, err
}

// finish reads the rest of an answer that is of no interest, so that the connection can be used
// again.
func finish(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
	_ = resp.Body.Close()
}

// uploadBody reads a piece of a blob for a request and counts what of it was sent. What is sent
// again counts anew.
type uploadBody struct {
	ctx      context.Context
	from     Blob
	off      int64 // where the piece begins
	size     int64 // and how long it is, in bytes
	progress Progress

	mu   sync.Mutex // guards the fields below: an old body may be read beside the next
	last *sending
	err  error // of the blob's own bytes
}

// sending is one reading of the piece.
type sending struct {
	io.Reader
	io.Closer
	body *uploadBody
	n    int64
}

func (b *uploadBody) open() (io.ReadCloser, error) {
	from, err := b.from.from(b.ctx, b.off)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	if err != nil {
		b.err = err
		return nil, err
	}
	b.last = &sending{Reader: io.LimitReader(from, b.size), Closer: from, body: b}
	return b.last, nil
}

// forget takes back what was counted.
func (b *uploadBody) forget() {
	if b.last != nil {
		b.progress.Stored(-b.last.n)
		b.last = nil
	}
}

func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	b := s.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == s {
		s.n += int64(n)
		b.progress.Stored(int64(n))
		if err != nil && err != io.EOF && b.ctx.Err() == nil {
			b.err = err
		}
	}
	return n, err
}

// end takes back the count, of which the caller knows better now. It blames the source when it was
// its bytes that could not be read.
func (b *uploadBody) end(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	if err != nil && b.err != nil {
		return final{b.err}
	}
	return err
}
