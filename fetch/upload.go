package fetch

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

// uploader brings the parts of one image to a repository.
type uploader struct {
	c        *client
	repo     string
	sources  *mountSources // where the registry may have blobs already
	progress Progress
	inPieces atomic.Bool // a blob did not pass whole
	close    func()
}

// newUploader returns an uploader to the repository of dst. It asks the registry to take blobs from the repositories of
// sources before it uploads them. The caller must call close.
func newUploader(dst ref.Ref, o RegistryOptions, sources *mountSources, p Progress) (*uploader, error) {
	c, idle, err := dial(dst, o)
	if err != nil {
		return nil, err
	}
	c.write = true
	return &uploader{c: c, repo: dst.Repo(), sources: sources, progress: p, close: idle}, nil
}

// upload is one blob to bring to the registry.
type upload struct {
	what   string // for messages
	digest artifact.WireDigest
	size   int64 // bytes
	open   func(ctx context.Context) (io.ReadCloser, error)
}

// from returns the blob's bytes from off on.
func (u upload) from(ctx context.Context, off int64) (io.ReadCloser, error) {
	r, err := u.open(ctx)
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

// put brings one blob to the registry, unless it is there. A try that failed starts over with the question whether it
// is there: the answer to it may have been lost, not the blob.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs
func (up *uploader) put(ctx context.Context, u upload) error {
	retry := retrier{policy: up.c.policy}
	for {
		err := up.try(ctx, u)
		if err == nil {
			return nil
		}
		if err = retry.again(ctx, err); err != nil {
			return fmt.Errorf("%s (layer %s): %w", u.what, u.digest, up.explainBlob(err))
		}
	}
}

func (up *uploader) try(ctx context.Context, u upload) error {
	s, err := up.start(ctx, u)
	if err == nil && s != nil && !s.divided() {
		if err = s.whole(ctx); err == nil || !s.divide(err) {
			return err
		}
		s, err = up.start(ctx, u) // that upload is spoiled
	}
	switch {
	case err != nil:
		return err
	case s == nil:
		up.progress.Skipped(u.size)
		return nil
	}
	return s.pieces(ctx)
}

// start opens an upload, nil when the registry has the blob: it was there, or it took it from another repository.
func (up *uploader) start(ctx context.Context, u upload) (*session, error) {
	there, err := up.there(ctx, u)
	if there || err != nil {
		return nil, err
	}
	resp, mounted, err := up.mount(ctx, u)
	if mounted || err != nil {
		return nil, err
	}
	if resp == nil {
		if resp, err = up.do(ctx, call{method: http.MethodPost, path: "blobs/uploads/"}); err != nil {
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
	s := &session{up: up, u: u, piece: max(pieceSize, leastPiece(resp.Header))}
	s.at, err = location(resp)
	return s, err
}

// mount asks the registry to take the blob from a repository that it has it in. Some answer with an upload instead:
// that answer comes back. A repository that is refused is not asked about again.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#mounting-a-blob-from-another-repository
func (up *uploader) mount(ctx context.Context, u upload) (opened *http.Response, mounted bool, err error) {
	for _, repo := range up.sources.list() {
		rights := auth.AppendScopesForHost(ctx, up.c.api, auth.ScopeRepository(repo, auth.ActionPull))
		resp, err := up.do(rights, call{
			method: http.MethodPost, path: "blobs/uploads/", query: "mount=" + u.digest.String() + "&from=" + url.QueryEscape(repo),
			of: u.digest,
		})
		var status *statusError
		switch {
		case errors.Is(err, ErrDenied), errors.As(err, &status) && status.code/100 == 4 && !retriable(err):
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
func (up *uploader) do(ctx context.Context, what call) (*http.Response, error) {
	resp, err := up.c.do(ctx, what)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode/100 != 2:
		err = newStatusError(resp, serverWords(resp))
	case what.writes():
		err = what.proved(resp)
	}
	if err == nil {
		return resp, nil
	}
	_ = resp.Body.Close()
	return nil, err
}

// there asks whether the registry has a blob. An answer to HEAD has no words, so a refusal is left to the upload, which
// says why, and so is an answer that is not about this blob.
func (up *uploader) there(ctx context.Context, u upload) (bool, error) {
	resp, err := up.do(ctx, call{method: http.MethodHead, path: "blobs/" + u.digest.String()})
	var status *statusError
	switch {
	case err == nil:
		finish(resp)
		got, named := namedDigest(resp.Header, "Docker-Content-Digest")
		page := !named && hasType(resp.Header.Get("Content-Type"), "text/html")
		other := named && got != u.digest || resp.ContentLength > 0 && resp.ContentLength != u.size
		return !page && !other, nil
	case errors.As(err, &status) && status.code/100 == 4 && !retriable(err):
		return false, nil
	}
	return false, err
}

// finish reads the rest of an answer that is of no interest, so that the connection can be used again.
func finish(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
	_ = resp.Body.Close()
}

// uploadBody reads a piece of a blob for a request and counts what of it was sent. What is sent again counts anew.
type uploadBody struct {
	ctx      context.Context
	from     upload
	off      int64 // where the piece begins
	size     int64 // and how long it is, in bytes
	progress Progress

	mu   sync.Mutex // guards the fields below: an old body may still be read when the next is opened
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

// end takes back the count, of which the caller knows better now. It blames the source when it was its bytes that could
// not be read.
func (b *uploadBody) end(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	if err != nil && b.err != nil {
		return final{b.err}
	}
	return err
}
