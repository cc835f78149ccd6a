package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

func TestErrno(t *testing.T) {
	for _, test := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{errKilled, syscall.EINTR},
		{fmt.Errorf("read: %w", errKilled), syscall.EINTR},
		{syscall.ENOSPC, syscall.ENOSPC},
		{&os.PathError{Op: "write", Path: "/cache", Err: syscall.ENOSPC}, syscall.ENOSPC},
		{fmt.Errorf("cache: %w", syscall.EDQUOT), syscall.ENOSPC},
		{errStopping, syscall.EIO},
		{errSizeWait, syscall.EIO},
		{errDamaged, syscall.EIO},
		{pfimg.ErrIntegrity, syscall.EIO},
		{context.Canceled, syscall.EIO},
		{context.DeadlineExceeded, syscall.EIO},
		{syscall.EINTR, syscall.EIO},
		{syscall.ENOENT, syscall.EIO},
		{syscall.EACCES, syscall.EIO},
		{fs.ErrNotExist, syscall.EIO},
		{io.EOF, syscall.EIO},
		{io.ErrUnexpectedEOF, syscall.EIO},
		{errors.New("registry down"), syscall.EIO},
		{errors.Join(errors.New("a"), syscall.ENOSPC), syscall.ENOSPC},
	} {
		if got := errno(test.err); got != test.want {
			t.Errorf("%v: %d (%v), want %d (%v)", test.err, int(got), got, int(test.want), test.want)
		}
	}
}
