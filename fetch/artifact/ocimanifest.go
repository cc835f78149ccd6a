package artifact

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/safetext"
	"github.com/pfmount/pfmount/fetch/strictjson"
)

// Media types and annotations of ProcessFork images, and of what else a registry may answer with.
const (
	MediaTypeConfig    = "application/vnd.processfork.image.v1+json"     // the pf manifest
	MediaTypeSignature = "application/vnd.processfork.signature.v1+json" // its signature
	MediaTypeLayer     = "application/vnd.processfork.layer.v1+zstd"     // one blob

	// PathAnnotation names a layer's blob: blobs/sha256/<aa>/<hex>.zst, by the digest of the
	// decoded bytes.
	PathAnnotation = "org.processfork.path"
	// DecodedSizeAnnotation is a layer's decoded size in bytes, a hint for blobs that have no
	// signed size.
	DecodedSizeAnnotation = "dev.pfmount.decoded-size"

	MediaTypeManifest   = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex      = "application/vnd.oci.image.index.v1+json"
	MediaTypeDocker     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	RefNameAnnotation   = "org.opencontainers.image.ref.name"
)

// maxLikely is how many of the first named layers are kept apart: the top-level blobs of an image.
const maxLikely = 8

// Manifest is what a mount needs of an OCI manifest.
type Manifest struct {
	Config     Descriptor
	Signatures []Descriptor // one in a good image; the second is kept to say so
	Named      layerTable
	First      []Layer // the first maxLikely that name a blob, in order
	// layers of blobs that say no logical digest, in order; their logical field is not set
	Unlabelled []Layer
	Layers     int   // all that the manifest lists, of whatever type
	WireBytes  int64 // of config, signature and blobs
	Size       int64 // of the document itself, in bytes
}

// manifestJSON is the document as it is read, before it is judged.
type manifestJSON struct {
	schema       int64
	mediaType    string
	artifactType string
	config       *RawDescriptor
	hasManifests bool // an index
	hasFSLayers  bool // docker's schema 1
	hasLayers    bool
	out          Manifest
}

type RawDescriptor struct {
	MediaType, Digest, path, decoded, RefName string
	size                                      int64
}

// ParseManifest reads an OCI manifest as a stream, so that 77,000 layers cost 80 bytes each.
// contentType is what the server called it, for manifests that do not say themselves. Errors of r
// come through as they are.
func ParseManifest(r io.Reader, contentType string) (*Manifest, error) {
	m := manifestJSON{schema: 2}
	err := ReadObject(r, func(j *strictjson.Reader, name []byte) (err error) {
		switch string(name) {
		case "schemaVersion":
			m.schema, err = j.Integer()
		case "mediaType":
			m.mediaType, err = ReadString(j)
		case "artifactType":
			m.artifactType, err = ReadString(j)
		case "config":
			m.config = new(RawDescriptor)
			err = m.config.Read(j)
		case "layers":
			m.hasLayers = true
			err = ReadList(j, m.addLayer)
		default:
			m.hasManifests = m.hasManifests || string(name) == "manifests"
			m.hasFSLayers = m.hasFSLayers || string(name) == "fsLayers"
			err = j.Skip()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if m.mediaType == "" {
		m.mediaType = contentType
	}
	return m.judge()
}

// judge says what the document is, and finishes it when it is a ProcessFork image.
func (m *manifestJSON) judge() (*Manifest, error) {
	switch {
	case m.hasManifests || m.mediaType == MediaTypeIndex || m.mediaType == MediaTypeDockerList:
		return nil, NotOurs("an image index (a list of images, one a platform: %s)", m.mediaType)
	case m.schema == 1 || m.hasFSLayers:
		return nil, NotOurs("a docker image of the old schema 1")
	case m.schema != 2:
		return nil, fmt.Errorf("OCI manifest: schemaVersion %d, not 2: %w", m.schema,
			pfimg.ErrUnsupported)
	case m.config == nil || !m.hasLayers:
		return nil, NotOurs("a document without config and layers (media type %s)",
			safetext.Quote(m.mediaType, 120))
	case m.config.MediaType != MediaTypeConfig:
		return nil, NotOurs("%s", m.kind())
	}
	var err error
	if m.out.Config, err = m.config.Descriptor(); err != nil {
		return nil, fmt.Errorf("OCI manifest: config: %w", err)
	}
	m.out.WireBytes = AddSize(m.out.WireBytes, m.out.Config.Size)
	m.out.Named.sort()
	return &m.out, nil
}

// kind names an artifact of another kind by the media type of its config.
func (m *manifestJSON) kind() string {
	what := "an artifact"
	switch m.config.MediaType {
	case "application/vnd.docker.container.image.v1+json":
		what = "a docker image"
	case "application/vnd.oci.image.config.v1+json":
		what = "a container image"
	case "application/vnd.cncf.helm.config.v1+json":
		what = "a helm chart"
	}
	s := what + " with a config of type " + safetext.Quote(m.config.MediaType, 120)
	if m.artifactType != "" {
		s += " and the artifact type " + safetext.Quote(m.artifactType, 120)
	}
	return s
}

// NotOurs returns a pfimg.ErrUnsupported that says what a document is in place of an image.
func NotOurs(format string, args ...any) error {
	return fmt.Errorf("not a ProcessFork image but "+format+": %w",
		append(args, pfimg.ErrUnsupported)...)
}

// Read reads a descriptor; fields that are not asked for are passed over, whatever they hold.
func (d *RawDescriptor) Read(j *strictjson.Reader) error {
	d.size = -1
	return j.Object(func(name []byte) (err error) {
		switch string(name) {
		case "mediaType":
			d.MediaType, err = ReadString(j)
		case "digest":
			d.Digest, err = ReadString(j)
		case "size":
			d.size, err = j.Integer()
		case "annotations":
			if null, err := j.Null(); null || err != nil {
				return err
			}
			err = j.Object(func(key []byte) (err error) {
				switch string(key) {
				case PathAnnotation:
					d.path, err = ReadString(j)
				case DecodedSizeAnnotation:
					d.decoded, err = ReadString(j)
				case RefNameAnnotation:
					d.RefName, err = ReadString(j)
				default:
					err = j.Skip()
				}
				return err
			})
		default:
			err = j.Skip()
		}
		return err
	})
}

// Descriptor checks what the bytes on the wire must be.
func (d *RawDescriptor) Descriptor() (Descriptor, error) {
	w, err := pfimg.ParseDigest(d.Digest)
	if err != nil {
		return Descriptor{}, fmt.Errorf("digest %s is not sha256: and 64 hex digits: %w",
			safetext.Quote(d.Digest, 90), pfimg.ErrIntegrity)
	}
	if d.size < 0 || d.size > maxSize {
		return Descriptor{}, fmt.Errorf("%s: size %d is missing or absurd: %w", WireDigest(w),
			d.size, pfimg.ErrIntegrity)
	}
	return Descriptor{Wire: WireDigest(w), Size: d.size}, nil
}

// addLayer reads one element of layers. Only layers of our two types count: others are
// none of the image's.
func (m *manifestJSON) addLayer(j *strictjson.Reader) error {
	var raw RawDescriptor
	if err := raw.Read(j); err != nil {
		return err
	}
	n := m.out.Layers
	m.out.Layers++
	if raw.MediaType != MediaTypeSignature && raw.MediaType != MediaTypeLayer {
		return nil
	}
	d, err := raw.Descriptor()
	if err != nil {
		return fmt.Errorf("OCI manifest: layer %d: %w", n, err)
	}
	m.out.WireBytes = AddSize(m.out.WireBytes, d.Size)
	if raw.MediaType == MediaTypeSignature {
		if len(m.out.Signatures) < 2 {
			m.out.Signatures = append(m.out.Signatures, d)
		}
		return nil
	}
	l := Layer{Wire: d.Wire, Size: d.Size, Decoded: -1}
	if size, err := strconv.ParseInt(raw.decoded, 10, 64); err == nil && size >= 0 &&
		size <= maxSize {
		l.Decoded = size
	}
	var ok bool
	if l.Logical, ok = blobName(raw.path); ok {
		m.out.Named = append(m.out.Named, l)
		if len(m.out.First) < maxLikely {
			m.out.First = append(m.out.First, l)
		}
	} else {
		m.out.Unlabelled = append(m.out.Unlabelled, l)
	}
	return nil
}

// blobName reads the logical digest in blobs/sha256/[<any>/]<hex>.zst.
func blobName(path string) (pfimg.Digest, bool) {
	name, ok := strings.CutPrefix(path, "blobs/sha256/")
	if !ok {
		return pfimg.Digest{}, false
	}
	if name, ok = strings.CutSuffix(name, ".zst"); !ok {
		return pfimg.Digest{}, false
	}
	if _, hex, ok := strings.Cut(name, "/"); ok {
		name = hex
	}
	d, err := pfimg.ParseDigest("sha256:" + name)
	return d, err == nil
}

// TooLong returns the error of an OCI manifest above MaxManifest.
func TooLong() error {
	return fmt.Errorf("OCI manifest: longer than %d bytes: %w", MaxManifest, pfimg.ErrIntegrity)
}
