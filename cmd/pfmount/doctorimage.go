package main

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/registry"
	"github.com/pfmount/pfmount/sign"
)

// stepLimit bounds one step of the way to an image: more than five tries of a registry that does not answer take.
const stepLimit = time.Minute

// certWarn is how long before its end a certificate is worth a warning.
const certWarn = 14 * 24 * time.Hour

// image goes the way to an image, step by step.
func (d *diagnosis) image(c *cli.Context, name string) {
	ctx, start := c.Context, time.Now()
	var imageRef ref.Ref
	var o fetch.Options
	ok := d.look(ctx, "reference", "", func(context.Context) (f finding, err error) {
		if imageRef, err = parseImage(name); err != nil {
			return f, err
		}
		o, err = fetchOptions(c, imageRef, nil, consoleLogger(c.Bool("verbose")))
		return finding{text: fmt.Sprintf("%s, in a %s", imageRef, imageRef.Kind()), values: values{"reference": imageRef.String(), "kind": imageRef.Kind().String()}}, err
	})
	after := []string{"manifest", "signature", "top-level", "blob"}
	way := []string{"route", "credentials", "name", "connect", "tls"}
	if !ok {
		d.skip(ctx, "there is no reference", append(way, after...)...)
		return
	}
	if imageRef.Kind() == ref.Registry && !d.route(ctx, imageRef, o) {
		d.skip(ctx, "the way there is not clear", append(way[2:], after...)...)
		return
	}
	im := d.open(ctx, imageRef, o)
	if im == nil {
		return
	}
	defer im.Close()
	d.blobs(ctx, im)
	t := im.Fetched()
	d.tell(ctx, check{Name: "total", Seconds: time.Since(start).Seconds()}, finding{
		text: fmt.Sprintf("%d requests, %d bytes", t.Requests, t.Bytes), values: values{"requests": t.Requests, "bytes": t.Bytes},
	})
}

// route says who will be asked, and with which credentials.
func (d *diagnosis) route(ctx context.Context, imageRef ref.Ref, o fetch.Options) bool {
	begin := time.Now()
	s, err := bounded(ctx, stepLimit, func(ctx context.Context) (registry.Description, error) {
		return registry.Describe(ctx, imageRef, o.Registry)
	})
	took := time.Since(begin).Seconds()
	var places, logins []string
	var list []values
	var loginErr error
	for _, e := range s.Endpoints {
		text := e.URL + " (" + strings.Join(e.Capabilities, ", ") + ")"
		if e.Unchecked {
			text += ", its certificate is not checked"
		}
		places = append(places, text)
		list = append(list, values{"url": e.URL, "mirror": e.Mirror, "capabilities": e.Capabilities, "certificate_unchecked": e.Unchecked, "credentials": e.Login})
		switch {
		case e.LoginError != nil && loginErr == nil:
			loginErr = e.LoginError
		case e.Login != "":
			logins = append(logins, e.Login)
		}
	}
	f := finding{text: strings.Join(places, ", then "), values: values{"hosts_file": s.HostsFile, "endpoints": list}, warn: strings.Join(s.Warnings, "; ")}
	if s.HostsFile != "" {
		f.text += ", by " + s.HostsFile
	}
	if !d.tell(ctx, check{Name: "route", Seconds: took, err: err, Advice: "mend the file or variable that it names"}, f) {
		d.skip(ctx, "there is no route", "credentials")
		return false
	}
	f = finding{text: orNone(logins)}
	if loginErr != nil { // it counts only where credentials are wanted: the manifest will tell
		f = finding{text: loginErr.Error(), warn: "mend what it names, or log in again with docker login or podman login"}
	}
	return d.tell(ctx, check{Name: "credentials"}, f)
}

// open connects, gets the manifest and checks the signature.
func (d *diagnosis) open(ctx context.Context, imageRef ref.Ref, o fetch.Options) *fetch.Image {
	w := newWayIn()
	o.Meta = w
	im, err := bounded(ctx, stepLimit, func(ctx context.Context) (*fetch.Image, error) {
		return fetch.Open(httptrace.WithClientTrace(ctx, w.trace()), imageRef, o)
	})
	took := time.Since(w.start)
	w.mu.Lock()
	defer w.mu.Unlock()
	failed, advice := err, ""
	if imageRef.Kind() == ref.Registry {
		advice = "-v tells of each request"
		for _, leg := range w.legs {
			failed = d.connection(ctx, leg, failed)
		}
	}
	manifest, signature := took, errors.Is(err, sign.ErrSignature) || errors.Is(err, sign.ErrKey) || errors.Is(err, sign.ErrAlgorithm)
	if w.manifest > 0 { // else all of the time is the manifest's, since nothing tells
		manifest, signature = w.manifest, true
	}
	first := check{Name: "manifest", Seconds: manifest.Seconds(), Advice: advice}
	second := check{Name: "signature", Seconds: (took - manifest).Seconds(), Advice: "ask who pushed the image for its key, and give it with --key-file"}
	switch {
	case err == nil:
		d.tell(ctx, first, manifestFinding(im))
		if f := signatureFinding(im); im.Manifest().Signer != sign.SignerNone || f.warn != "" {
			d.tell(ctx, second, f)
		} else {
			d.skip(ctx, "there is none to check", "signature")
		}
		return im
	case failed == nil:
		d.skip(ctx, "there is no connection", "manifest", "signature")
	case signature:
		d.tell(ctx, first, finding{text: "it is there"})
		second.err = err
		d.tell(ctx, second, finding{})
	default:
		first.err = err
		d.tell(ctx, first, finding{})
		d.skip(ctx, "there is no manifest", "signature")
	}
	d.skip(ctx, "the image is not open", "top-level", "blob")
	return nil
}

func manifestFinding(im *fetch.Image) finding {
	id := im.Manifest().ID.String()
	f := finding{text: "id " + id, values: values{
		"id": id, "digest": im.Digest(), "bytes": im.Facts().ManifestSize, "layers": im.Facts().Layers, "wire_bytes": im.Facts().WireBytes,
	}}
	if im.Digest() != "" {
		f.text = fmt.Sprintf("%s, %d bytes, %d layers, %d bytes with them", im.Digest(), im.Facts().ManifestSize, im.Facts().Layers, wholeSize(im))
	}
	return f
}

func signatureFinding(im *fetch.Image) finding {
	key := im.Manifest().Signer
	f := finding{text: "good", values: values{"key": string(key)}, warn: strings.Join(im.Warnings(), "; ")}
	switch key {
	case sign.SignerDefault:
		f.text = "good, by the public default key"
	case sign.SignerGiven:
		f.text = "good, by a key given"
	case sign.SignerNone:
		f.text = "not checked"
	}
	return f
}

// connection tells how one part of connecting went. It returns the error that is left to tell: none, if it ended here.
func (d *diagnosis) connection(ctx context.Context, l *leg, failed error) error {
	if len(l.hosts) == 0 {
		why := l.unused
		if failed != nil {
			why = "not reached"
		}
		d.skip(ctx, why, l.name)
		return failed
	}
	k := check{Name: l.name, Advice: l.advice}
	f := finding{values: values{"hosts": l.hosts}}
	var texts []string
	good := false
	for _, h := range l.hosts {
		k.Seconds += h.Seconds
		texts = append(texts, h.Text)
		good = good || h.OK
		switch {
		case !h.OK:
			f.warn = l.advice
		case !h.Expires.IsZero() && time.Until(h.Expires) < certWarn:
			f.warn = "the certificate ends soon: renew it"
		}
	}
	f.text = strings.Join(texts, "; ")
	if !good && failed != nil {
		k.err, failed = failed, nil
	}
	d.tell(ctx, k, f)
	return failed
}

// blobs fetches, decodes and verifies the small top-level blobs, the tree and one file.
func (d *diagnosis) blobs(ctx context.Context, im *fetch.Image) {
	advice := "pfmount verify lists all that is bad or missing"
	step := func(name string, f func(context.Context) (finding, error)) bool {
		begin := time.Now()
		found, err := bounded(ctx, stepLimit, f)
		return d.tell(ctx, check{Name: name, Seconds: time.Since(begin).Seconds(), err: err, Advice: advice}, found)
	}
	var smallest pfimg.Digest
	size := int64(-1)
	ok := step("top-level", func(ctx context.Context) (finding, error) {
		var read, later int
		for _, top := range im.Manifest().TopLevel() {
			if wire, _, _ := im.Wire(top.Digest); wire > eagerLimit {
				later++
				continue
			}
			if err := im.Blob(ctx, top.Digest, -1, new(discard)); err != nil {
				return finding{}, fmt.Errorf("%s: %w", top.Path, err)
			}
			read++
		}
		ix, err := pfimg.Build(ctx, im.Manifest(), spool{im}.stream)
		if err != nil {
			return finding{}, err
		}
		for b, n := range ix.Blobs() {
			if n > 0 && (size < 0 || n < size) && ix.Signed(b) {
				smallest, size = b, n
			}
		}
		st := ix.Stats()
		return finding{text: fmt.Sprintf("%d read, %d larger ones left; %d files, %d folders, %d pages", read, later, st.Files, st.Dirs, st.Pages),
			values: values{"read": read, "left": later, "files": st.Files, "dirs": st.Dirs, "pages": st.Pages}}, nil
	})
	switch {
	case !ok:
		d.skip(ctx, "there is no tree", "blob")
	case size < 0:
		d.skip(ctx, "the image has no file that is not empty", "blob")
	default:
		step("blob", func(ctx context.Context) (finding, error) {
			err := im.Blob(ctx, smallest, size, new(discard))
			return finding{text: fmt.Sprintf("%s, %d bytes, fetched, decoded, verified", smallest, size),
				values: values{"digest": smallest.String(), "bytes": size}}, err
		})
	}
}
