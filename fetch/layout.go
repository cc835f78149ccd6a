package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fetch/strictjson"
)

// maxIndex is the longest index.json that is read, in bytes; maxTags is how many tags an error lists.
const (
	maxIndex = 64 << 20
	maxTags  = 20
)

// layout reads an image from an OCI image layout on disk.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
type layout struct {
	ref     ref.Ref
	traffic *counters
}

var _ source = (*layout)(nil)

func (l *layout) root(ctx context.Context) (*root, error) {
	if err := l.version(ctx); err != nil {
		return nil, err
	}
	want := descriptor{wire: wireDigest(l.ref.Digest()), size: -1}
	if !l.ref.Pinned() {
		var err error
		if want, err = l.resolve(ctx); err != nil {
			return nil, err
		}
	}
	m, err := l.manifest(ctx, want)
	if err != nil {
		if l.ref.Pinned() && errors.Is(err, ErrMissing) {
			err = fmt.Errorf("no manifest %s in %q: %w", want.wire, l.ref.Dir(), ErrNotFound)
		}
		return nil, err
	}
	r, err := readOCI(ctx, m, want.wire.String(), func(ctx context.Context, d descriptor) ([]byte, error) {
		from, err := l.read(ctx, layer{wire: d.wire, size: d.size}, 0)
		if err != nil {
			return nil, err
		}
		defer func() { _ = from.Close() }()
		var m memory
		err = copyHashed(&m, from, d, maxSmall)
		return m.bytes(), err
	})
	if err != nil {
		return nil, err
	}
	r.raw = func(ctx context.Context) ([]byte, error) {
		return readSmall(ctx, filepath.Join(l.ref.Dir(), "blobs", "sha256", want.wire.hex()), maxManifest, l.traffic)
	}
	return r, nil
}

// head reads the index and what it names.
func (l *layout) head(ctx context.Context) (string, error) {
	if l.ref.Pinned() {
		return "", nil
	}
	r, err := l.root(ctx)
	if err != nil {
		return "", err
	}
	return r.digest, nil
}

// version checks that the folder is a layout that we know.
func (l *layout) version(ctx context.Context) error {
	path := filepath.Join(l.ref.Dir(), "oci-layout")
	raw, err := readSmall(ctx, path, maxSmall, l.traffic)
	if errors.Is(err, ErrMissing) {
		return fmt.Errorf("%q is no OCI image layout (it has no file oci-layout): %w", l.ref.Dir(), ErrNotFound)
	}
	if err != nil {
		return err
	}
	version := ""
	err = readJSON(bytes.NewReader(raw), func(j *strictjson.Reader, name []byte) (err error) {
		if string(name) != "imageLayoutVersion" {
			return j.Skip()
		}
		version, err = readString(j)
		return err
	})
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	if !strings.HasPrefix(version, "1.") {
		return fmt.Errorf("%q: layout version %s, not 1.0.0: %w", path, safetext.Quote(version, 40), pfimg.ErrUnsupported)
	}
	return nil
}

// resolve finds the manifest that the reference means in index.json: the one with its tag, or the only one.
func (l *layout) resolve(ctx context.Context) (descriptor, error) {
	path := filepath.Join(l.ref.Dir(), "index.json")
	from, err := openLocal(ctx, path, -1, l.traffic)
	if err != nil {
		return descriptor{}, err
	}
	defer func() { _ = from.Close() }()
	if from.size > maxIndex {
		return descriptor{}, fmt.Errorf("%q: %d bytes, the limit is %d: %w", path, from.size, maxIndex, pfimg.ErrIntegrity)
	}
	s := indexScan{tag: l.ref.Tag(), dir: l.ref.Dir()}
	err = readJSON(from, func(j *strictjson.Reader, name []byte) error {
		if string(name) != "manifests" {
			return j.Skip()
		}
		return readList(j, s.add)
	})
	if err != nil {
		return descriptor{}, fmt.Errorf("%q: %w", path, err)
	}
	return s.choose()
}

// indexScan goes through the manifests of an index.json.
type indexScan struct {
	tag, dir string
	found    []rawDescriptor // candidates with different digests, at most two
	tags     []string
	entries  int
}

func (s *indexScan) add(j *strictjson.Reader) error {
	var d rawDescriptor
	if err := d.read(j); err != nil {
		return err
	}
	s.entries++
	if d.refName != "" && len(s.tags) <= maxTags {
		s.tags = append(s.tags, clip(d.refName, 100))
	}
	if s.tag != "" && d.refName != s.tag {
		return nil
	}
	if len(s.found) == 0 || len(s.found) == 1 && s.found[0].digest != d.digest {
		s.found = append(s.found, d)
	}
	return nil
}

func (s *indexScan) choose() (descriptor, error) {
	if len(s.found) == 1 {
		d := s.found[0]
		if d.mediaType == mediaTypeIndex || d.mediaType == mediaTypeDockerList {
			return descriptor{}, notOurs("an image index (a list of images, one a platform: %s)", d.mediaType)
		}
		return d.descriptor()
	}
	tags := strings.Join(s.tags[:min(len(s.tags), maxTags)], ", ")
	if len(s.tags) > maxTags {
		tags += ", …"
	}
	switch {
	case s.entries == 0:
		return descriptor{}, fmt.Errorf("%q holds no image: %w", s.dir, ErrNotFound)
	case s.tag != "" && len(s.found) == 0:
		return descriptor{}, fmt.Errorf("no image in %q is tagged %q; it has: %s: %w", s.dir, s.tag, tags, ErrNotFound)
	case s.tag != "":
		return descriptor{}, fmt.Errorf("two images in %q are tagged %q; name one by @sha256:…: %w", s.dir, s.tag, ref.ErrInvalid)
	}
	return descriptor{}, fmt.Errorf("%q holds %d images; name one: oci-layout:%s:TAG with TAG one of %s: %w", s.dir, s.entries, s.dir, tags, ref.ErrInvalid)
}

// manifest reads the OCI manifest as a stream.
func (l *layout) manifest(ctx context.Context, want descriptor) (*ociManifest, error) {
	from, err := l.read(ctx, layer{wire: want.wire, size: want.size}, 0)
	if err != nil {
		return nil, fmt.Errorf("OCI manifest: %w", err)
	}
	defer func() { _ = from.Close() }()
	if from.size > maxManifest {
		return nil, tooLong()
	}
	h := sha256.New()
	tee := io.TeeReader(io.LimitReader(from, maxManifest+1), h)
	m, decodeErr := decodeManifest(tee, "")
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return nil, fmt.Errorf("OCI manifest: %w", err)
	}
	if got := wireDigest(h.Sum(nil)); got != want.wire {
		return nil, fmt.Errorf("OCI manifest %s: the stored bytes hash to %s: %w", want.wire, got, pfimg.ErrIntegrity)
	}
	if decodeErr != nil {
		return nil, fmt.Errorf("OCI manifest %s: %w", want.wire, decodeErr)
	}
	m.size = from.size
	return m, nil
}

func (l *layout) read(ctx context.Context, want layer, _ int) (*stored, error) {
	return openLocal(ctx, filepath.Join(l.ref.Dir(), "blobs", "sha256", want.wire.hex()), want.size, l.traffic)
}
