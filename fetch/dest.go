package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// folderDepot keeps an image as the reference tool's file registry does.
type folderDest struct{ dir string }

var _ destination = (*folderDest)(nil)

func (f *folderDest) prepare(ctx context.Context, c Cargo) error {
	raw, err := readSmall(ctx, filepath.Join(f.dir, "manifest.json"), maxSmall, new(counters))
	switch {
	case errors.Is(err, ErrMissing):
		return nil
	case errors.Is(err, pfimg.ErrIntegrity), err == nil && !bytes.Equal(raw, c.Image.manifest.Raw):
		return fmt.Errorf("%q holds another image (%s, not %s): %w", f.dir, pfimg.Digest(hashOf(raw)), c.Image.manifest.ID, ErrTaken)
	}
	return err
}

func (f *folderDest) path(logical pfimg.Digest, _ wireDigest) (string, bool) {
	return zstPath(f.dir, logical), true
}

// commit writes the signature, and last the manifest, without which the folder is no image.
func (f *folderDest) commit(_ context.Context, p *puller, _ []storedBlob) (string, error) {
	sig, warning := p.cargo.signature(p.key)
	if warning != "" {
		p.warnings = append(p.warnings, warning)
	}
	if err := p.temp.write(filepath.Join(f.dir, "manifest.json.sig"), sig); err != nil {
		return "", err
	}
	return "", p.temp.publish(filepath.Join(f.dir, "manifest.json"), p.cargo.Image.manifest.Raw)
}

// storeDepot keeps an image in a local ProcessFork store, beside the others.
type storeDest struct{ ref Ref }

var _ destination = (*storeDest)(nil)

func (s *storeDest) prepare(_ context.Context, c Cargo) error {
	if s.ref.pinned && s.ref.digest != c.Image.manifest.ID {
		return fmt.Errorf("the image is %s, another one than the destination names: %w", c.Image.manifest.ID, ErrRef)
	}
	return nil
}

func (s *storeDest) path(logical pfimg.Digest, _ wireDigest) (string, bool) {
	return zstPath(s.ref.dir, logical), true
}

// commit writes the manifest as a blob, and last under images.
func (s *storeDest) commit(_ context.Context, p *puller, _ []storedBlob) (string, error) {
	m := p.cargo.Image.manifest
	if path := zstPath(s.ref.dir, m.ID); !isFile(path) {
		stored, err := compressSmall(m.Raw)
		if err != nil {
			return "", err
		}
		if err := p.temp.write(path, stored); err != nil {
			return "", err
		}
	}
	return "", p.temp.publish(filepath.Join(s.ref.dir, "images", m.ID.Hex()+".json"), m.Raw)
}

func isFile(path string) bool {
	_, ok := statRegular(path)
	return ok
}

// compressSmall makes one zstd frame, as the reference tool's are: no checksum, a window of at most 8 MiB.
func compressSmall(b []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderCRC(false),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(pooledWindow))
	if err != nil {
		return nil, err
	}
	out := enc.EncodeAll(b, nil)
	return out, enc.Close()
}
