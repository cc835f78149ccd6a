package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/pfmount/pfmount/fetch/registry"

	"github.com/pfmount/pfmount/fetch"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/sign"
)

// stepLimit bounds one step of the way to an image: more than five tries of a registry that does
// not answer take.
const stepLimit = time.Minute

// topLevelLimit is the size on the wire up to which a top-level blob is fetched.
const topLevelLimit = 1 << 20

// image goes the way to an image, step by step.
func (d *Diagnosis) image(ctx context.Context) {
	start := time.Now()
	var imageRef ref.Ref
	var o fetch.Options
	ok := d.look(ctx, "reference", "", func(context.Context) (f finding, err error) {
		imageRef, o, err = d.cfg.Image()
		name, kind := imageRef.String(), imageRef.Kind().String()
		f = finding{text: fmt.Sprintf("%s, in a %s", name, kind)}
		f.values = Values{"reference": name, "kind": kind}
		return f, err
	})
	after := []string{"manifest", "signature", "top-level", "blob"}
	if !ok {
		d.skip(ctx, "there is no reference", append([]string{"route", "credentials"}, after...)...)
		return
	}
	if imageRef.Kind() == ref.Registry && !d.route(ctx, imageRef, o) {
		d.skip(ctx, "the way there is not clear", after...)
		return
	}
	im := d.open(ctx, imageRef, o)
	if im == nil {
		return
	}
	defer im.Close()
	d.blobs(ctx, im)
	t := im.Fetched()
	d.tell(ctx, Check{Name: "total", Seconds: time.Since(start).Seconds()}, finding{
		text:   fmt.Sprintf("%d requests, %d bytes", t.Requests, t.Bytes),
		values: Values{"requests": t.Requests, "bytes": t.Bytes},
	})
}

// route says which hosts will be asked, and with which credentials.
func (d *Diagnosis) route(ctx context.Context, imageRef ref.Ref, o fetch.Options) bool {
	begin := time.Now()
	s, err := bounded(ctx, stepLimit, func(ctx context.Context) (registry.Description, error) {
		return registry.Describe(ctx, imageRef, o.Registry)
	})
	took := time.Since(begin).Seconds()
	var places, logins []string
	var list []Values
	var loginErr error
	for _, e := range s.Endpoints {
		text := e.URL + " (" + strings.Join(e.Capabilities, ", ") + ")"
		if e.Unchecked {
			text += ", its certificate is not checked"
		}
		places = append(places, text)
		list = append(list, Values{
			"url": e.URL, "mirror": e.Mirror, "capabilities": e.Capabilities,
			"certificate_unchecked": e.Unchecked, "credentials": e.Login,
		})
		switch {
		case e.LoginError != nil && loginErr == nil:
			loginErr = e.LoginError
		case e.Login != "":
			logins = append(logins, e.Login)
		}
	}
	f := finding{
		text: strings.Join(places, ", then "), warn: strings.Join(s.Warnings, "; "),
		values: Values{"hosts_file": s.HostsFile, "endpoints": list},
	}
	if s.HostsFile != "" {
		f.text += ", by " + s.HostsFile
	}
	way := Check{
		Name: "route", Seconds: took, err: err, Advice: "mend the file or variable that it names",
	}
	if !d.tell(ctx, way, f) {
		d.skip(ctx, "there is no route", "credentials")
		return false
	}
	f = finding{text: orNone(logins)}
	if loginErr != nil { // it counts only where credentials are wanted: the manifest will tell
		f = finding{
			text: loginErr.Error(),
			warn: "mend what it names, or log in again with docker login or podman login",
		}
	}
	return d.tell(ctx, Check{Name: "credentials"}, f)
}

// open gets the manifest and checks the signature.
func (d *Diagnosis) open(ctx context.Context, imageRef ref.Ref, o fetch.Options) *fetch.Image {
	start := time.Now()
	im, err := bounded(ctx, stepLimit, func(ctx context.Context) (*fetch.Image, error) {
		return fetch.Open(ctx, imageRef, o)
	})
	first := Check{Name: "manifest", Seconds: time.Since(start).Seconds()}
	second := Check{
		Name: "signature", err: err,
		Advice: "ask who pushed the image for its key, and give it with --key-file",
	}
	switch {
	case err == nil:
		d.tell(ctx, first, manifestFinding(im))
		if f := signatureFinding(im); im.Manifest().Signer != sign.SignerNone || f.warn != "" {
			d.tell(ctx, second, f)
		} else {
			d.skip(ctx, "there is none to check", "signature")
		}
		return im
	case errors.Is(err, sign.ErrSignature), errors.Is(err, sign.ErrKey),
		errors.Is(err, sign.ErrAlgorithm):
		d.tell(ctx, first, finding{text: "it is there"})
		d.tell(ctx, second, finding{})
	default:
		first.err = err
		if imageRef.Kind() == ref.Registry {
			first.Advice = advice(err)
		}
		d.tell(ctx, first, finding{})
		d.skip(ctx, "there is no manifest", "signature")
	}
	d.skip(ctx, "the image is not open", "top-level", "blob")
	return nil
}

// advice says what to do about an error of a registry.
func advice(err error) string {
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	var dial *net.OpError
	switch {
	case errors.As(err, &name):
		return "check the name, and this machine's DNS: getent hosts HOST"
	case errors.As(err, &certificate):
		return "check the certificate, its authority (--ca-file) and the clock"
	case errors.As(err, &dial) && dial.Op == "dial":
		return "check that the host is up, and whether a firewall or a proxy (HTTPS_PROXY) " +
			"stands between"
	}
	return "-v tells of each request"
}

func manifestFinding(im *fetch.Image) finding {
	id, facts := im.Manifest().ID.String(), im.Facts()
	f := finding{text: "id " + id, values: Values{
		"id": id, "digest": im.Digest(), "bytes": facts.ManifestSize, "layers": facts.Layers,
		"wire_bytes": facts.WireBytes,
	}}
	if im.Digest() != "" {
		f.text = fmt.Sprintf("%s, %d bytes, %d layers, %d bytes with them", im.Digest(),
			facts.ManifestSize, facts.Layers, facts.ManifestSize+facts.WireBytes)
	}
	return f
}

func signatureFinding(im *fetch.Image) finding {
	key := im.Manifest().Signer
	f := finding{text: "good", warn: strings.Join(im.Warnings(), "; ")}
	f.values = Values{"key": string(key)}
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

// blobs fetches, decodes and verifies the small top-level blobs, the tree and one file.
func (d *Diagnosis) blobs(ctx context.Context, im *fetch.Image) {
	step := func(name string, f looker) bool {
		begin := time.Now()
		found, err := bounded(ctx, stepLimit, f)
		return d.tell(ctx, Check{
			Name: name, Seconds: time.Since(begin).Seconds(), err: err,
			Advice: "pfmount verify lists all that is bad or missing",
		}, found)
	}
	var ix *pfimg.Index
	ok := step("top-level", func(ctx context.Context) (f finding, err error) {
		f, ix, err = d.topLevel(ctx, im)
		return f, err
	})
	if !ok {
		d.skip(ctx, "there is no tree", "blob")
		return
	}
	var smallest pfimg.Digest
	size := int64(-1)
	for b, n := range ix.Blobs() {
		if n > 0 && (size < 0 || n < size) && ix.Signed(b) {
			smallest, size = b, n
		}
	}
	if size < 0 {
		d.skip(ctx, "the image has no file that is not empty", "blob")
		return
	}
	step("blob", func(ctx context.Context) (finding, error) {
		err := im.Blob(ctx, smallest, size, discard{})
		text := fmt.Sprintf("%s, %d bytes, fetched, decoded, verified", smallest, size)
		return finding{text: text, values: Values{"digest": smallest.String(), "bytes": size}}, err
	})
}

// topLevel reads the small top-level blobs, and builds the index from the tree.
func (d *Diagnosis) topLevel(ctx context.Context, im *fetch.Image) (finding, *pfimg.Index, error) {
	var read, later int
	for _, top := range im.Manifest().TopLevel() {
		if wire, _, _ := im.Wire(top.Digest); wire > topLevelLimit {
			later++
			continue
		}
		if err := im.Blob(ctx, top.Digest, -1, discard{}); err != nil {
			return finding{}, nil, fmt.Errorf("%s: %w", top.Path, err)
		}
		read++
	}
	open := func(ctx context.Context, b pfimg.Digest) (io.ReadCloser, error) {
		return d.cfg.Spool(ctx, im, b)
	}
	ix, err := pfimg.Build(ctx, im.Manifest(), open)
	if err != nil {
		return finding{}, nil, err
	}
	st := ix.Stats()
	f := finding{values: Values{
		"read": read, "left": later, "files": st.Files, "dirs": st.Dirs, "pages": st.Pages,
	}}
	f.text = fmt.Sprintf("%d read, %d larger ones left; %d files, %d folders, %d pages",
		read, later, st.Files, st.Dirs, st.Pages)
	return f, ix, nil
}

// discard is a sink that drops what it is given.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Reset() error                { return nil }
