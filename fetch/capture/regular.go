package capture

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

const (
	readSize  = 256 << 10 // bytes of one read
	smallFile = 1 << 20   // files up to this many bytes are compressed in one go
)

// regular is an open file and what stat said of it before.
type regular struct {
	file   *os.File
	path   string
	before unix.Stat_t
}

func (r *regular) close() { _ = r.file.Close() }

// store stores the file's bytes. buf has room for a small file and a byte more.
func (r *regular) store(ctx context.Context, s *store, buf []byte) (pfimg.Digest, error) {
	if r.before.Size > int64(len(buf)-1) {
		return r.stream(ctx, s, buf)
	}
	if err := context.Cause(ctx); err != nil {
		return pfimg.Digest{}, err
	}
	n, err := io.ReadFull(r.file, buf[:r.before.Size+1])
	if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		return pfimg.Digest{}, source(r.path, err)
	}
	if err := r.unchanged(int64(n)); err != nil {
		return pfimg.Digest{}, err
	}
	return s.put(buf[:n])
}

// stream stores a large file.
func (r *regular) stream(ctx context.Context, s *store, buf []byte) (pfimg.Digest, error) {
	b, err := s.create()
	if err != nil {
		return pfimg.Digest{}, err
	}
	for err == nil {
		if err = context.Cause(ctx); err != nil {
			break
		}
		var n int
		n, err = r.file.Read(buf[:readSize])
		if err != nil && err != io.EOF {
			err = source(r.path, err)
			break
		}
		if b.size+int64(n) > r.before.Size {
			err = source(r.path, errChanged) // a file that grows as fast as it is read has no end
			break
		}
		if _, werr := b.Write(buf[:n]); werr != nil {
			err = werr
		}
	}
	if err == io.EOF {
		err = r.unchanged(b.size)
	}
	if err != nil {
		b.drop()
		return pfimg.Digest{}, err
	}
	return b.keep()
}

// unchanged looks whether the file is still what it was before its n bytes were read.
func (r *regular) unchanged(n int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(r.file.Fd()), &st); err != nil {
		return source(r.path, err)
	}
	b := &r.before
	if n != b.Size || st.Size != b.Size || st.Ino != b.Ino || st.Dev != b.Dev ||
		st.Mode != b.Mode ||
		st.Mtim != b.Mtim ||
		st.Ctim != b.Ctim {
		return source(r.path, errChanged)
	}
	return nil
}
