package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/ref"
)

// Open returns where an image on disk is read; nil for an image in a registry. trusted says
// why a folder needs no signature; "": it needs one.
func Open(r ref.Ref, trusted string, traffic *artifact.Counters) artifact.Source {
	switch r.Kind() {
	case ref.Layout:
		return &layout{ref: r, traffic: traffic}
	case ref.Folder:
		return &folder{ref: r, traffic: traffic, trusted: trusted}
	case ref.Store:
		return &store{ref: r, traffic: traffic}
	}
	return nil
}

// openRegular opens a file of a local image. A FIFO or a device in its place is an error at once,
// not a wait; links to regular files are followed, since what they hold is hashed.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file: %w", path, pfimg.ErrIntegrity)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, fi.Size(), nil
}

// statRegular returns the length of a regular file, ok false for anything else.
func statRegular(path string) (int64, bool) {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return 0, false
	}
	return fi.Size(), true
}

// localFile is an open file of a local image that counts what is read and hears the context.
type localFile struct {
	*os.File
	ctx     context.Context
	traffic *artifact.Counters
}

func (f *localFile) Read(p []byte) (int, error) {
	if f.ctx.Err() != nil {
		return 0, context.Cause(f.ctx)
	}
	n, err := f.File.Read(p)
	f.traffic.Bytes.Add(int64(n))
	return n, err
}

// WriteTo hides os.File's, which would go past Read.
func (f *localFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{f})
}

// openLocal opens the stored bytes of a layer. size -1 takes the file as it is.
func openLocal(ctx context.Context, path string, size int64, traffic *artifact.Counters,
) (*artifact.Stored, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f, n, err := openRegular(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%q does not exist: %w", path, artifact.ErrMissing)
	case err != nil:
		return nil, err
	}
	traffic.Requests.Add(1)
	s := &artifact.Stored{
		ReadCloser: &localFile{File: f, ctx: ctx, traffic: traffic},
		Size:       n,
		From:       func() string { return path },
	}
	if size >= 0 && n != size {
		_ = f.Close()
		return nil, &artifact.WrongBytes{
			Text: fmt.Sprintf("%q has %d bytes, the manifest says %d", path, n, size),
			From: path,
		}
	}
	return s, nil
}

// readSmall reads a whole local file of at most limit bytes.
func readSmall(ctx context.Context, path string, limit int64, traffic *artifact.Counters,
) ([]byte, error) {
	from, err := openLocal(ctx, path, -1, traffic)
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }()
	if from.Size > limit {
		return nil, fmt.Errorf("%q: %d bytes, the limit is %d: %w", path, from.Size, limit,
			pfimg.ErrIntegrity)
	}
	b, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%q: longer than %d bytes: %w", path, limit, pfimg.ErrIntegrity)
	}
	return b, nil
}

// ErrTaken says that the place where an image shall go holds another one.
var ErrTaken = errors.New("the destination is taken")
