package capture

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// maxWindow is the largest zstd window that readers decode without extra care (8 MiB), and what the
// reference writes.
const maxWindow = 8 << 20

// store writes blobs: blobs/sha256/<aa>/<hex>.zst, where <hex> is the SHA-256 of the bytes before
// compression. A blob has its name only when it is whole. Safe for use by several goroutines.
type store struct {
	dir     string
	level   zstd.EncoderLevel
	whole   *zstd.Encoder      // for EncodeAll, by all at once
	streams chan *zstd.Encoder // as many as may stream at once; nil: not made yet
	blobs   atomic.Int64       // different ones
	stored  atomic.Int64       // their bytes, compressed
}

// newStore makes a store in dir with one encoder more than jobs: the tree is written while files
// are.
func newStore(dir string, level zstd.EncoderLevel, jobs int) (*store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return nil, err
	}
	s := &store{dir: dir, level: level, streams: make(chan *zstd.Encoder, jobs+1)}
	for range cap(s.streams) {
		s.streams <- nil
	}
	var err error
	s.whole, err = s.encoder(jobs)
	return s, err
}

// encoder makes an encoder as the reference's: no checksum, since a digest names the blob, and a
// frame also for no bytes at all.
func (s *store) encoder(concurrency int) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(s.level), zstd.WithWindowSize(maxWindow),
		zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true),
		zstd.WithEncoderConcurrency(concurrency), zstd.WithLowerEncoderMem(true))
}

// close frees the encoders. No blob may be open.
func (s *store) close() {
	s.whole.Close()
	for range cap(s.streams) {
		if e := <-s.streams; e != nil {
			e.Close()
		}
	}
}

func (s *store) path(d pfimg.Digest) string { return filepath.Join(s.dir, d.StoredPath()) }

// put stores a small blob.
func (s *store) put(data []byte) (pfimg.Digest, error) {
	d := pfimg.Digest(sha256.Sum256(data))
	if _, err := os.Lstat(s.path(d)); err == nil {
		return d, nil
	}
	f, err := os.CreateTemp(s.dir, "blob-*")
	if err != nil {
		return d, err
	}
	if _, err := f.Write(s.whole.EncodeAll(data, nil)); err != nil {
		return d, errors.Join(err, discard(f))
	}
	return d, s.keep(f, d)
}

// keep gives a complete file its name, unless another blob of the same bytes has it.
func (s *store) keep(f *os.File, d pfimg.Digest) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(err, discard(f))
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	to := s.path(d)
	err = renameNew(f.Name(), to)
	if errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(filepath.Dir(to), 0o700); err == nil {
			err = renameNew(f.Name(), to)
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return os.Remove(f.Name())
	}
	if err != nil {
		return errors.Join(&os.LinkError{Op: "rename", Old: f.Name(), New: to, Err: err},
			os.Remove(f.Name()))
	}
	s.blobs.Add(1)
	s.stored.Add(size)
	return nil
}

// renameNew renames a file unless the new name is taken: then it is EEXIST.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// The file system cannot: a race of two equal blobs then counts both.
	if _, err := os.Lstat(to); err == nil {
		return unix.EEXIST
	}
	return unix.Rename(from, to)
}

func discard(f *os.File) error { return errors.Join(f.Close(), os.Remove(f.Name())) }

// blob is a blob being written as a stream. It ends with keep or drop.
type blob struct {
	store *store
	file  *os.File
	enc   *zstd.Encoder
	sum   hash.Hash
	size  int64
}

var _ io.Writer = (*blob)(nil)

// create starts a blob; it waits for an encoder.
func (s *store) create() (*blob, error) {
	enc := <-s.streams
	if enc == nil {
		var err error
		if enc, err = s.encoder(1); err != nil {
			s.streams <- nil
			return nil, fmt.Errorf("zstd: %w", err)
		}
	}
	f, err := os.CreateTemp(s.dir, "blob-*")
	if err != nil {
		s.streams <- enc
		return nil, err
	}
	enc.Reset(f)
	return &blob{store: s, file: f, enc: enc, sum: sha256.New()}, nil
}

// Write adds bytes to the blob.
func (b *blob) Write(p []byte) (int, error) {
	b.sum.Write(p)
	b.size += int64(len(p))
	return b.enc.Write(p)
}

// keep ends the blob and gives it its name.
func (b *blob) keep() (pfimg.Digest, error) {
	err := b.enc.Close()
	b.release()
	if err != nil {
		return pfimg.Digest{}, errors.Join(err, discard(b.file))
	}
	d := pfimg.Digest(b.sum.Sum(nil))
	return d, b.store.keep(b.file, d)
}

// drop ends the blob without a trace.
func (b *blob) drop() {
	b.release()
	_ = discard(b.file)
}

func (b *blob) release() {
	b.enc.Reset(nil)
	b.store.streams <- b.enc
}
