package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fetch/strictjson"
)

// maxIndex is the longest index.json that is read, in bytes; maxTags is how many of its tags are
// kept, and shownTags how many an error lists.
const (
	maxIndex  = 64 << 20
	maxTags   = 1000
	shownTags = 20
)

// layout reads an image from an OCI image layout on disk.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
type layout struct {
	ref     ref.Ref
	traffic *artifact.Counters
}

var _ artifact.Source = (*layout)(nil)

func (l *layout) Root(ctx context.Context) (*artifact.Root, error) {
	if err := l.version(ctx); err != nil {
		return nil, err
	}
	want := artifact.Descriptor{Wire: artifact.WireDigest(l.ref.Digest()), Size: -1}
	if !l.ref.Pinned() {
		var err error
		if want, err = l.resolve(ctx); err != nil {
			return nil, err
		}
	}
	m, err := l.manifest(ctx, want)
	if err != nil {
		if l.ref.Pinned() && errors.Is(err, artifact.ErrMissing) {
			err = fmt.Errorf("no manifest %s in %q: %w", want.Wire, l.ref.Dir(),
				artifact.ErrNotFound)
		}
		return nil, err
	}
	r, err := artifact.ReadRoot(
		ctx,
		m,
		want.Wire.String(),
		func(ctx context.Context, d artifact.Descriptor) ([]byte, error) {
			from, err := l.Read(ctx, artifact.Layer{Wire: d.Wire, Size: d.Size}, 0)
			if err != nil {
				return nil, err
			}
			defer func() { _ = from.Close() }()
			var m artifact.Memory
			err = artifact.CopyHashed(&m, from, d, artifact.MaxSmall)
			return m.Bytes(), err
		},
	)
	if err != nil {
		return nil, err
	}
	r.Raw = func(ctx context.Context) ([]byte, error) {
		return readSmall(ctx, filepath.Join(l.ref.Dir(), "blobs", "sha256", want.Wire.Hex()),
			artifact.MaxManifest, l.traffic)
	}
	return r, nil
}

// Head reads the index and what it names.
func (l *layout) Head(ctx context.Context) (string, error) {
	if l.ref.Pinned() {
		return "", nil
	}
	r, err := l.Root(ctx)
	if err != nil {
		return "", err
	}
	return r.Digest, nil
}

// version checks that the folder is a layout that we know.
func (l *layout) version(ctx context.Context) error {
	path := filepath.Join(l.ref.Dir(), "oci-layout")
	raw, err := readSmall(ctx, path, artifact.MaxSmall, l.traffic)
	if errors.Is(err, artifact.ErrMissing) {
		return fmt.Errorf("%q is no OCI image layout (it has no file oci-layout): %w", l.ref.Dir(),
			artifact.ErrNotFound)
	}
	if err != nil {
		return err
	}
	version := ""
	err = artifact.ReadObject(
		bytes.NewReader(raw),
		func(j *strictjson.Reader, name []byte) (err error) {
			if string(name) != "imageLayoutVersion" {
				return j.Skip()
			}
			version, err = artifact.ReadString(j)
			return err
		},
	)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	if !strings.HasPrefix(version, "1.") {
		return fmt.Errorf("%q: layout version %s, not 1.0.0: %w", path, safetext.Quote(version, 40),
			pfimg.ErrUnsupported)
	}
	return nil
}

// resolve finds the manifest that the reference means in index.json: the one with its tag, or the
// only one.
func (l *layout) resolve(ctx context.Context) (artifact.Descriptor, error) {
	s := indexScan{tag: l.ref.Tag(), dir: l.ref.Dir()}
	if err := s.read(ctx, l.traffic); err != nil {
		return artifact.Descriptor{}, err
	}
	return s.choose()
}

// indexScan goes through the manifests of an index.json.
type indexScan struct {
	tag, dir string
	found    []artifact.RawDescriptor // candidates with different digests, at most two
	tags     []string
	entries  int
}

// Tags returns tags of the OCI image layout in dir, at most 1,000.
func Tags(ctx context.Context, dir string) ([]string, error) {
	s := indexScan{dir: dir}
	err := s.read(ctx, new(artifact.Counters))
	return s.tags, err
}

func (s *indexScan) read(ctx context.Context, traffic *artifact.Counters) error {
	path := filepath.Join(s.dir, "index.json")
	from, err := openLocal(ctx, path, -1, traffic)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	if from.Size > maxIndex {
		return fmt.Errorf("%q: %d bytes, the limit is %d: %w", path, from.Size, maxIndex,
			pfimg.ErrIntegrity)
	}
	err = artifact.ReadObject(from, func(j *strictjson.Reader, name []byte) error {
		if string(name) != "manifests" {
			return j.Skip()
		}
		return artifact.ReadList(j, s.add)
	})
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

func (s *indexScan) add(j *strictjson.Reader) error {
	var d artifact.RawDescriptor
	if err := d.Read(j); err != nil {
		return err
	}
	s.entries++
	if d.RefName != "" && len(s.tags) < maxTags {
		s.tags = append(s.tags, safetext.Clip(d.RefName, 100))
	}
	if s.tag != "" && d.RefName != s.tag {
		return nil
	}
	if len(s.found) == 0 || len(s.found) == 1 && s.found[0].Digest != d.Digest {
		s.found = append(s.found, d)
	}
	return nil
}

func (s *indexScan) choose() (artifact.Descriptor, error) {
	if len(s.found) == 1 {
		d := s.found[0]
		if d.MediaType == artifact.MediaTypeIndex || d.MediaType == artifact.MediaTypeDockerList {
			return artifact.Descriptor{}, artifact.NotOurs(
				"an image index (a list of images, one a platform: %s)", d.MediaType)
		}
		return d.Descriptor()
	}
	tags := strings.Join(s.tags[:min(len(s.tags), shownTags)], ", ")
	if len(s.tags) > shownTags {
		tags += ", …"
	}
	switch {
	case s.entries == 0:
		return artifact.Descriptor{}, fmt.Errorf("%q holds no image: %w", s.dir,
			artifact.ErrNotFound)
	case s.tag != "" && len(s.found) == 0:
		return artifact.Descriptor{}, fmt.Errorf("no image in %q is tagged %q; it has: %s: %w",
			s.dir, s.tag, tags, artifact.ErrNotFound)
	case s.tag != "":
		return artifact.Descriptor{}, fmt.Errorf(
			"two images in %q are tagged %q; name one by @sha256:…: %w", s.dir, s.tag,
			ref.ErrInvalid)
	}
	return artifact.Descriptor{}, fmt.Errorf(
		"%q holds %d images; name one: oci-layout:%s:TAG with TAG one of %s: %w", s.dir, s.entries,
		s.dir, tags, ref.ErrInvalid)
}

// manifest reads the OCI manifest as a stream.
func (l *layout) manifest(ctx context.Context, want artifact.Descriptor,
) (*artifact.Manifest, error) {
	from, err := l.Read(ctx, artifact.Layer{Wire: want.Wire, Size: want.Size}, 0)
	if err != nil {
		return nil, fmt.Errorf("OCI manifest: %w", err)
	}
	defer func() { _ = from.Close() }()
	if from.Size > artifact.MaxManifest {
		return nil, artifact.TooLong()
	}
	h := sha256.New()
	tee := io.TeeReader(io.LimitReader(from, artifact.MaxManifest+1), h)
	m, decodeErr := artifact.ParseManifest(tee, "")
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return nil, fmt.Errorf("OCI manifest: %w", err)
	}
	if got := artifact.WireDigest(h.Sum(nil)); got != want.Wire {
		return nil, fmt.Errorf("OCI manifest %s: the stored bytes hash to %s: %w", want.Wire, got,
			pfimg.ErrIntegrity)
	}
	if decodeErr != nil {
		return nil, fmt.Errorf("OCI manifest %s: %w", want.Wire, decodeErr)
	}
	m.Size = from.Size
	return m, nil
}

func (l *layout) Read(ctx context.Context, want artifact.Layer, _ int) (*artifact.Stored, error) {
	return openLocal(ctx, filepath.Join(l.ref.Dir(), "blobs", "sha256", want.Wire.Hex()), want.Size,
		l.traffic)
}
