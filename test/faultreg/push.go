package faultreg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/pfmount/pfmount/test/imgbuild"
)

// uploaders is the number of uploads at once.
const uploaders = 8

// Push uploads an image as a client does (HEAD, POST, PUT, then the manifest), concurrently. It talks
// to the registry behind log and rules, so pushing leaves no trace in them.
func (s *Server) Push(ctx context.Context, img *imgbuild.Image, repo, tag string) error {
	p := pusher{client: &http.Client{Transport: direct{s.over.next}}, base: "http://registry/v2/" + repo}
	blobs := make(chan imgbuild.Blob)
	var wg sync.WaitGroup
	errs := make([]error, uploaders)
	for i := range errs {
		wg.Go(func() {
			for b := range blobs {
				if errs[i] == nil {
					errs[i] = p.blob(ctx, b)
				}
			}
		})
	}
	blobs <- img.Config()
	for _, l := range img.Layers {
		blobs <- l.Wire
	}
	close(blobs)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("push %s:%s: %w", repo, tag, err)
	}
	raw := img.OCIManifest()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.base+"/manifests/"+tag,
		bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", imgbuild.ManifestType)
	_, err = p.do(req)
	return err
}

type pusher struct {
	client *http.Client
	base   string
}

// blob uploads a blob that is not there.
func (p *pusher) blob(ctx context.Context, b imgbuild.Blob) error {
	head, err := http.NewRequestWithContext(ctx, http.MethodHead, p.base+"/blobs/"+b.Digest, nil)
	if err != nil {
		return err
	}
	if _, err := p.do(head); err == nil {
		return nil
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	h, err := p.do(post)
	if err != nil {
		return err
	}
	u, err := post.URL.Parse(h.Get("Location"))
	if err != nil {
		return err
	}
	q := u.Query()
	q.Set("digest", b.Digest)
	u.RawQuery = q.Encode()
	body, err := b.Open()
	if err != nil {
		return err
	}
	put, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), body)
	if err != nil {
		body.Close()
		return err
	}
	put.ContentLength = b.Size
	put.Header.Set("Content-Type", "application/octet-stream")
	_, err = p.do(put)
	return err
}

// do sends one request, wants a 2xx and gives the answer's headers.
func (p *pusher) do(req *http.Request) (http.Header, error) {
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status,
			strings.TrimSpace(string(text)))
	}
	return resp.Header, nil
}

// direct calls a handler as if it were a server.
type direct struct{ handler http.Handler }

// RoundTrip answers a request by calling the handler.
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr, in.Host = r.URL.RequestURI(), "127.0.0.1:1", r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	a := &answer{header: http.Header{}, status: http.StatusOK}
	d.handler.ServeHTTP(a, in)
	return &http.Response{
		StatusCode: a.status, Status: fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
		Header: a.header, Body: io.NopCloser(&a.body), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1,
		ProtoMinor: 1,
	}, nil
}

// answer is a response writer in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
