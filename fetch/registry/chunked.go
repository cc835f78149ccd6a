package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/pfmount/pfmount/fetch/safetext"
)

// chunkSize is how much of a blob one request uploads when the whole is too much for it, in bytes.
// Registries that want more say so.
const chunkSize = 16 << 20

// session is an upload that the registry opened. A blob goes up whole, by one PUT. When the
// registry, or a proxy before it, did not take that, larger blobs go up in chunks: a PATCH each,
// then an empty PUT.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-a-blob-in-chunks
type session struct {
	up            *Uploader
	u             Blob
	chunk         int64    // bytes of one PATCH
	at            *url.URL // where the next request goes; nil: the registry forgot the upload
	off           int64    // bytes that the registry has
	offsetUnknown bool     // off may be another by now
	count         int64    // bytes that the meter has
	most          int64    // off at its highest: what lies below is no progress
}

// errForgot says that a registry does not know an upload any more.
var errForgot = errors.New("the registry forgot the upload")

// minChunk is the shortest chunk that the registry wants, in bytes; 0: it does not say.
func minChunk(h http.Header) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(h.Get("OCI-Chunk-Min-Length")), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// chunkedFromStart says that the blob goes up in chunks from the start, since another did not pass
// whole.
func (s *session) chunkedFromStart() bool { return s.u.Size > s.chunk && s.up.chunked.Load() }

// mayChunk says that the blob, and those to come, may pass in chunks, after the answer to the
// whole.
func (s *session) mayChunk(err error) bool {
	if s.u.Size <= s.chunk {
		return false
	}
	var status *statusError
	var broken *requestError
	switch {
	case errors.As(err, &status):
		switch status.code {
		case http.StatusRequestEntityTooLarge, http.StatusRequestTimeout,
			http.StatusBadGateway, http.StatusGatewayTimeout:
		default:
			return false
		}
	case !errors.As(err, &broken) || !retriable(err):
		return false
	}
	s.up.chunked.Store(true)
	return true
}

// closeURL is where the request goes that ends the upload.
func (s *session) closeURL() *url.URL {
	at := *s.at
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	// What was there stays as it is: it may be signed.
	at.RawQuery += "digest=" + s.u.Digest.String()
	return &at
}

// whole sends all of the blob by one request.
func (s *session) whole(ctx context.Context) error {
	body := &uploadBody{ctx: ctx, from: s.u, size: s.u.Size, progress: s.up.progress}
	resp, err := s.up.do(ctx, call{
		method: http.MethodPut, at: s.closeURL(), size: s.u.Size, body: body.open, of: s.u.Digest,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
	if err = body.end(err); err != nil {
		return err
	}
	finish(resp)
	s.moved(s.u.Size)
	s.up.progress.Copied(s.u.Size)
	return nil
}

// moved notes that the registry has the bytes up to off.
func (s *session) moved(off int64) {
	s.off = off
	s.up.progress.Stored(off - s.count)
	s.count = off
}

// chunks sends the blob chunk by chunk. After a failure it asks how far the registry came and goes
// on from there, or from the start when the registry forgot. Only bytes that go further than ever
// are progress to the retrier.
func (s *session) chunks(ctx context.Context) error {
	retry := retrier{policy: s.up.c.policy}
	err := retry.do(ctx, func() error {
		for {
			done, err := s.step(ctx)
			if err != nil {
				s.offsetUnknown = true
				return err
			}
			if done {
				return nil
			}
			retry.progressed(int(max(0, s.off-s.most)))
			s.most = max(s.most, s.off)
		}
	})
	if err != nil {
		s.moved(0)
		return final{err} // it tried as often as it may
	}
	return nil
}

// step sends the one request that is due. done: the registry has the blob.
func (s *session) step(ctx context.Context) (done bool, err error) {
	switch {
	case s.at == nil:
		return s.reopen(ctx)
	case s.offsetUnknown:
		return false, s.ask(ctx)
	case s.off < s.u.Size:
		return false, s.patch(ctx)
	}
	resp, err := s.up.do(ctx, call{method: http.MethodPut, at: s.closeURL(), of: s.u.Digest})
	if err != nil {
		return false, s.classify(err)
	}
	finish(resp)
	s.up.progress.Copied(s.u.Size)
	return true, nil
}

// reopen starts anew, unless the blob is there by now: then only the last answer was lost.
func (s *session) reopen(ctx context.Context) (done bool, err error) {
	anew, err := s.up.start(ctx, s.u)
	if err != nil {
		return false, err
	}
	if anew == nil {
		s.moved(s.u.Size)
		s.up.progress.Copied(s.u.Size)
		return true, nil
	}
	s.at, s.chunk, s.offsetUnknown = anew.at, anew.chunk, false
	s.moved(0)
	return false, nil
}

// patch sends the next chunk.
func (s *session) patch(ctx context.Context) error {
	n := min(s.chunk, s.u.Size-s.off)
	body := &uploadBody{ctx: ctx, from: s.u, off: s.off, size: n, progress: s.up.progress}
	resp, err := s.up.do(ctx, call{
		method: http.MethodPatch, at: s.at, size: n, body: body.open,
		header: http.Header{
			"Content-Type":  {"application/octet-stream"},
			"Content-Range": {fmt.Sprintf("%d-%d", s.off, s.off+n-1)},
		},
	})
	if err = body.end(err); err != nil {
		return s.classify(err)
	}
	finish(resp)
	end := s.off + n
	if has, said := rangeEnd(resp.Header); said {
		if has <= s.off {
			return fmt.Errorf("%s: the registry has %d bytes after %d were sent: %w",
				target(resp.Request), has, end, ErrRegistry)
		}
		end = min(end, has)
	}
	if err := s.follow(resp); err != nil {
		return err
	}
	s.moved(end)
	return nil
}

// ask learns how far the registry came.
func (s *session) ask(ctx context.Context) error {
	resp, err := s.up.do(ctx, call{method: http.MethodGet, at: s.at})
	if err != nil {
		var status *statusError
		if errors.As(err, &status) && !retriable(err) {
			s.at = nil
			return fmt.Errorf("%w (%v)", errForgot, err)
		}
		return err
	}
	finish(resp)
	has, said := rangeEnd(resp.Header)
	if !said || has > s.u.Size {
		s.at = nil
		return fmt.Errorf("%s: %w: it says %s", target(resp.Request), errForgot,
			safetext.Quote(resp.Header.Get("Range"), 40))
	}
	if err := s.follow(resp); err != nil {
		return err
	}
	s.offsetUnknown = false
	s.moved(has)
	return nil
}

// follow takes over where the answer wants the next request.
func (s *session) follow(resp *http.Response) error {
	if resp.Header.Get("Location") == "" {
		return nil // it must be there; the old one is as good
	}
	at, err := location(resp)
	if err == nil {
		s.at = at
	}
	return err
}

// classify makes the answers to a chunk out of order, and to one of an upload that is gone, errors
// that another try may mend.
func (s *session) classify(err error) error {
	var status *statusError
	if !errors.As(err, &status) {
		return err
	}
	switch status.code {
	case http.StatusNotFound:
		s.at = nil
		return fmt.Errorf("%w (%v)", errForgot, err)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("a chunk was out of order (%v)", err)
	}
	return err
}

// rangeEnd reads how many bytes a registry says that it has: "0-N", N the last one's place. "0-0"
// is also how they say that they have nothing, so that is what it means here.
func rangeEnd(h http.Header) (n int64, said bool) {
	first, last, ok := strings.Cut(strings.TrimPrefix(h.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if n > 0 {
		n++
	}
	return n, ok && first == "0" && err == nil && n >= 0
}
