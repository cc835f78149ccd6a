package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/pfmount/pfmount/fetch/artifact"
)

// download reads one thing from a registry as a stream that does not break: a request that fails or
// is cut is sent again, for the rest only where the server can do that, and else from the start,
// passing over what was delivered. The digest, which the reader of the stream checks, tells if a
// server changed its mind in between.
type download struct {
	ctx    context.Context
	c      *client
	path   string      // below /v2/<repo>/
	header http.Header // of every request
	size   int64       // bytes to deliver; -1: until the body ends
	ranges bool        // Range may be asked for
	check  func(*http.Response) error

	retry   retrier
	body    io.ReadCloser
	off     int64     // delivered
	skip    int64     // to pass over of this body
	resumed int64     // where the last part began
	at      *endpoint // that gave the last body
	past    int       // endpoints of the route that are not asked again
	from    string
	err     error // final
}

var _ io.ReadCloser = (*download)(nil)

// errCut is a body that ended before its time.
var errCut = errors.New("the body was cut short")

// Read returns the next bytes. It resumes a body that broke, at the next endpoint or later at the
// same.
func (d *download) Read(p []byte) (n int, err error) {
	if d.err != nil {
		return 0, d.err
	}
	end := false
	d.err = d.retry.do(d.ctx, func() error {
		for n == 0 && !end {
			n, err = d.step(p)
			switch {
			case err == nil:
			case err == io.EOF:
				end = true
			default:
				if d.drop(); !d.next(err) {
					return err
				}
			}
		}
		return nil
	})
	if end {
		d.err = io.EOF
	}
	return n, d.err
}

// next turns to the endpoints behind one whose body broke, if there are any. It does not go back.
func (d *download) next(err error) bool {
	at := d.at
	d.at = nil
	var wrong *artifact.WrongBytes
	if at == nil || !at.mirror() || d.ctx.Err() != nil || errors.As(err, &wrong) {
		return false
	}
	at.note(d.c.log, err)
	d.past = d.c.route.after(at)
	return true
}

// step does one piece of work: opens a body, or reads from it.
func (d *download) step(p []byte) (int, error) {
	if d.size >= 0 && d.off >= d.size {
		return 0, io.EOF // never past the descriptor's size
	}
	if d.body == nil {
		return 0, d.open()
	}
	if d.skip > 0 {
		n, err := io.CopyN(io.Discard, d.body, d.skip)
		d.skip -= n
		return 0, d.cut(err)
	}
	if d.size >= 0 {
		p = p[:min(int64(len(p)), d.size-d.off)]
	}
	n, err := d.body.Read(p)
	d.off += int64(n)
	d.retry.progressed(n)
	if n > 0 {
		return n, nil // an error comes again with the next read
	}
	return 0, d.cut(err)
}

// cut names the error of a body: an end where bytes are due is none.
func (d *download) cut(err error) error {
	switch {
	case err == nil, err == io.EOF && d.size < 0 && d.skip == 0:
		return err
	case d.ctx.Err() != nil:
		return context.Cause(d.ctx)
	}
	text := plainText(err)
	cause := err
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		text, cause = errCut.Error(), errCut
	}
	text += fmt.Sprintf(" at byte %d", d.off)
	if d.size >= 0 {
		text += fmt.Sprintf(" of %d", d.size)
	}
	return &requestError{target: "GET " + d.from, text: text, kind: ErrRegistry, cause: cause}
}

func (d *download) open() error {
	header := d.header
	if d.off > 0 && d.ranges {
		header = header.Clone()
		header.Set("Range", "bytes="+strconv.FormatInt(d.off, 10)+"-")
	}
	resp, err := d.c.do(d.ctx, call{
		method: http.MethodGet, path: d.path, header: header, check: d.check, skip: d.past,
	})
	if err != nil {
		return d.failed(err)
	}
	d.at = askedOf(resp.Request.Context()).of
	return d.take(resp)
}

// failed says that a blob which the registry does not have is missing.
func (d *download) failed(err error) error {
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusNotFound &&
		strings.HasPrefix(d.path, "blobs/") {
		return fmt.Errorf("%w: %w", err, artifact.ErrMissing)
	}
	return err
}

// take decides what an answer's body holds: the rest, or all again.
func (d *download) take(resp *http.Response) error {
	d.from = clip(resp.Request.URL.Host+resp.Request.URL.EscapedPath(), maxText)
	switch {
	case resp.StatusCode == http.StatusOK:
		if d.size >= 0 && resp.ContentLength >= 0 && resp.ContentLength != d.size {
			_ = resp.Body.Close()
			text := fmt.Sprintf("the registry has %d bytes, the manifest says %d",
				resp.ContentLength, d.size)
			return &artifact.WrongBytes{Text: text, From: origin(resp)}
		}
		d.skip = d.off
	case resp.StatusCode == http.StatusPartialContent && d.rest(resp):
		d.skip, d.resumed = 0, d.off
	default: // 416, or a part that was not asked for: from the start, once
		_ = resp.Body.Close()
		d.ranges = false
		d.c.log.Debug("a range was not honoured, starting over",
			"from", d.from, "status", resp.StatusCode, "offset", d.off)
		return nil
	}
	d.body, d.from = resp.Body, origin(resp)
	return nil
}

// rest says that a 206 is exactly what is missing.
func (d *download) rest(resp *http.Response) bool {
	span, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	if !ok {
		return false
	}
	span, total, ok := strings.Cut(span, "/")
	first, _, dash := strings.Cut(span, "-")
	return ok && dash && first == strconv.FormatInt(d.off, 10) &&
		(total == strconv.FormatInt(d.size, 10) || total == "*" || d.size < 0)
}

func (d *download) drop() {
	if d.body != nil {
		_ = d.body.Close()
		d.body = nil
	}
}

// Close gives the connection back.
func (d *download) Close() error {
	d.drop()
	if d.err == nil {
		d.err = artifact.ErrClosed
	}
	return nil
}

// origin says where bytes came from: the host, and what proxies wrote about themselves.
func origin(resp *http.Response) string {
	s := clip(resp.Request.URL.Host, 255)
	for _, name := range []string{"Via", "X-Cache", "Age", "Server"} {
		if v := resp.Header.Get(name); v != "" {
			s += " " + name + "=" + clip(v, 80)
		}
	}
	return s
}

// download begins one; wrong is how often it brought wrong bytes.
func (r *Repository) download(ctx context.Context, path string, size int64, wrong int) *download {
	d := &download{
		ctx: ctx, c: r.c, path: path, size: size, header: http.Header{},
		retry: retrier{policy: r.c.policy},
	}
	if wrong > 0 {
		d.past = wrong - 1
		d.header.Set("Cache-Control", "no-cache")
		d.header.Set("Pragma", "no-cache")
	}
	return d
}

// stored makes a download the stored bytes of something.
func (d *download) stored() *artifact.Stored {
	return &artifact.Stored{ReadCloser: d, Size: d.size, Net: true, From: func() string {
		if d.resumed > 0 {
			return fmt.Sprintf("%s (resumed at byte %d)", d.from, d.resumed)
		}
		return d.from
	}}
}
