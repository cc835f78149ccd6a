package imgbuild

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

// spillSize is the content size above which compressed bytes go to a file.
const spillSize = 1 << 20

// Blob is stored (compressed) bytes, in memory or in a file.
type Blob struct {
	Digest string // "sha256:…" of these bytes
	Size   int64
	data   []byte
	path   string
}

// NewBlob is a blob held in memory.
func NewBlob(data []byte) Blob {
	return Blob{Digest: digestOf(data), Size: int64(len(data)), data: data}
}

// fileBlob is a blob kept in a file whose digest is known.
func fileBlob(path, digest string) (Blob, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Blob{}, err
	}
	return Blob{Digest: digest, Size: st.Size(), path: path}, nil
}

// Open gives the bytes from their start; the caller closes.
func (b Blob) Open() (io.ReadSeekCloser, error) {
	if b.path != "" {
		return os.Open(b.path)
	}
	return memReader{bytes.NewReader(b.data)}, nil
}

// Bytes gives all of them.
func (b Blob) Bytes() ([]byte, error) {
	if b.path != "" {
		return os.ReadFile(b.path)
	}
	return b.data, nil
}

type memReader struct{ *bytes.Reader }

func (memReader) Close() error { return nil }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// encoder compresses contents one after another with one zstd encoder.
type encoder struct {
	z   *zstd.Encoder
	dir string
	buf bytes.Buffer
}

func newEncoder(dir string) (*encoder, error) {
	// As the reference writes them: one frame, no checksum, an empty frame for no bytes.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true),
		zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	return &encoder{z: z, dir: dir}, err
}

// encode compresses c and gives the stored bytes and the logical digest.
func (e *encoder) encode(c Content) (blob Blob, logical string, err error) {
	if c.Size() > spillSize {
		return e.encodeFile(c)
	}
	e.buf.Reset()
	logical, err = e.stream(c, &e.buf)
	if err != nil {
		return Blob{}, "", err
	}
	return NewBlob(bytes.Clone(e.buf.Bytes())), logical, nil
}

func (e *encoder) encodeFile(c Content) (blob Blob, logical string, err error) {
	f, err := os.CreateTemp(e.dir, "blob-*.zst")
	if err != nil {
		return Blob{}, "", err
	}
	wire := sha256.New()
	logical, err = e.stream(c, io.MultiWriter(f, wire))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return Blob{}, "", err
	}
	blob, err = fileBlob(f.Name(), "sha256:"+hex.EncodeToString(wire.Sum(nil)))
	return blob, logical, err
}

// stream compresses c into w and gives the digest of the content.
func (e *encoder) stream(c Content, w io.Writer) (string, error) {
	e.z.Reset(w)
	sum := sha256.New()
	n, err := c.WriteTo(io.MultiWriter(e.z, sum))
	if err != nil {
		return "", err
	}
	if n != c.Size() {
		return "", fmt.Errorf("content of %d bytes wrote %d", c.Size(), n)
	}
	if n > 0 {
		// A flush before the end keeps the content size out of the frame header, as in the
		// reference's streams.
		if err := e.z.Flush(); err != nil {
			return "", err
		}
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), e.z.Close()
}

// Compress is data as one zstd frame.
func Compress(data []byte) []byte {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	if err != nil {
		panic(err) // only wrong options
	}
	defer z.Close()
	return z.EncodeAll(data, nil)
}

// decode gives the decoded bytes of b, for JSON blobs that this package reads again.
func (b Blob) decode() ([]byte, error) {
	r, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
}
