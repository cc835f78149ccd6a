package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
)

// errUnconfirmed marks a success that a registry claims and that is not seen.
var errUnconfirmed = errors.New("not proved")

// maxPeek is how much of a page is read to see that it is one, in bytes.
const maxPeek = 512

// proved refuses an answer to a write that says success and cannot be one: a page for browsers, or
// the digest of something else. The rest of the body is left to be read.
func (c call) proved(resp *http.Response) error {
	refuse := func(text string) error {
		return &requestError{
			target: target(resp.Request), kind: ErrRegistry, cause: errRule,
			text: fmt.Sprintf("status %d, but ", resp.StatusCode) + text,
		}
	}
	if isPage(resp) {
		return refuse("the body is a web page (text/html), no registry's answer: " +
			"nothing was stored; a login page or a proxy may stand before the registry")
	}
	if c.of == (artifact.WireDigest{}) {
		return nil
	}
	for _, name := range []string{"Docker-Content-Digest", "Location"} {
		if got, ok := namedDigest(resp.Header, name); ok && got != c.of {
			return refuse(name + " names another digest, " + got.String() +
				" in place of " + c.of.String())
		}
	}
	return nil
}

// isPage says that an answer is a page for browsers. The type alone does not tell: Quay sends
// text/html with the word OK, or with nothing.
func isPage(resp *http.Response) bool {
	if !hasType(resp.Header.Get("Content-Type"), "text/html") {
		return false
	}
	head, _ := io.ReadAll(io.LimitReader(resp.Body, maxPeek))
	return bytes.HasPrefix(bytes.TrimLeft(head, "\ufeff \t\r\n"), []byte("<"))
}

// namedDigest returns the digest that a header names: as its value, or as the end of a URL's path.
func namedDigest(h http.Header, name string) (artifact.WireDigest, bool) {
	u, err := url.Parse(h.Get(name))
	if err != nil {
		return artifact.WireDigest{}, false
	}
	text := u.Opaque // of sha256:…, which looks like a URL
	if text != "" {
		text = u.Scheme + ":" + text
	} else {
		text = path.Base(u.Path)
	}
	d, err := pfimg.ParseDigest(text)
	return artifact.WireDigest(d), err == nil
}

// confirm asks the registry for the manifest that it said it took. What is not there yet may be so
// soon: some registries store in one place and answer from another.
func (up *Uploader) confirm(ctx context.Context, manifest []byte) error {
	retry := retrier{policy: up.c.policy}
	err := retry.do(ctx, func() error { return up.confirmOnce(ctx, manifest) })
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("the registry said that it took the manifest, but asking for it by "+
		"its digest failed, so the image may not be there: %w", err)
}

// confirmOnce asks for the headers of the manifest. Where only GET answers, its bytes are hashed.
func (up *Uploader) confirmOnce(ctx context.Context, manifest []byte) error {
	want := artifact.DigestOf(manifest)
	h, err := up.c.headManifest(ctx, want.String())
	var status *statusError
	switch {
	case errors.As(err, &status) && status.code == http.StatusNotFound:
		text := "404 Not Found"
		if status.words != "" {
			text += " (" + status.words + ")"
		}
		return &requestError{
			target: status.target, kind: ErrRegistry, cause: errUnconfirmed, text: text,
		}
	case err != nil:
		return err
	}
	got := h.digest
	if h.body {
		raw, err := h.read(ctx)
		if err != nil {
			return err
		}
		got = artifact.DigestOf(raw)
	}
	return sameManifest(h.resp, want, got)
}

func sameManifest(resp *http.Response, want, got artifact.WireDigest) error {
	if got == want {
		return nil
	}
	return &requestError{
		target: target(resp.Request), kind: ErrRegistry, cause: errRule,
		text: fmt.Sprintf("the answer is another manifest, %s", got),
	}
}
