package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// folderDest keeps an image as the reference tool's file registry does.
type folderDest struct{ dir string }

var _ destination = (*folderDest)(nil)

func (f *folderDest) prepare(ctx context.Context, id Identity) error {
	raw, err := readSmall(ctx, filepath.Join(f.dir, "manifest.json"), artifact.MaxSmall,
		new(artifact.Counters))
	switch {
	case errors.Is(err, artifact.ErrMissing):
		return nil
	case errors.Is(err, pfimg.ErrIntegrity), err == nil && !bytes.Equal(raw, id.Manifest):
		return fmt.Errorf("%q holds another image (%s, not %s): %w", f.dir,
			pfimg.Digest(artifact.DigestOf(raw)), id.CID, ErrTaken)
	}
	return err
}

func (f *folderDest) path(logical pfimg.Digest, _ artifact.WireDigest) (string, bool) {
	return filepath.Join(f.dir, logical.StoredPath()), true
}

// commit writes the signature, and last the manifest, without which the folder is no image.
func (f *folderDest) commit(_ context.Context, temp *tempDir, p Parts) error {
	if err := temp.write(filepath.Join(f.dir, "manifest.json.sig"), p.Signature); err != nil {
		return err
	}
	return temp.publish(filepath.Join(f.dir, "manifest.json"), p.Manifest)
}

// storeDest keeps an image in a local ProcessFork store, beside the others.
type storeDest struct{ ref ref.Ref }

var _ destination = (*storeDest)(nil)

func (s *storeDest) prepare(_ context.Context, id Identity) error {
	if s.ref.Pinned() && s.ref.Digest() != id.CID {
		return fmt.Errorf("the image is %s, another one than the destination names: %w", id.CID,
			ref.ErrInvalid)
	}
	return nil
}

func (s *storeDest) path(logical pfimg.Digest, _ artifact.WireDigest) (string, bool) {
	return filepath.Join(s.ref.Dir(), logical.StoredPath()), true
}

// commit writes the manifest as a blob, and last under images.
func (s *storeDest) commit(_ context.Context, temp *tempDir, p Parts) error {
	cid := pfimg.Digest(artifact.DigestOf(p.Manifest))
	if path := filepath.Join(s.ref.Dir(), cid.StoredPath()); !isFile(path) {
		stored, err := compressSmall(p.Manifest)
		if err != nil {
			return err
		}
		if err := temp.write(path, stored); err != nil {
			return err
		}
	}
	return temp.publish(filepath.Join(s.ref.Dir(), "images", cid.Hex()+".json"), p.Manifest)
}

func isFile(path string) bool {
	_, ok := statRegular(path)
	return ok
}

// compressSmall makes one zstd frame, as the reference tool's are: no checksum, a window of at most
// 8 MiB.
func compressSmall(b []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(artifact.PooledWindow))
	if err != nil {
		return nil, err
	}
	out := enc.EncodeAll(b, nil)
	return out, enc.Close()
}
