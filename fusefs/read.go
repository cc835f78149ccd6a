package fusefs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/pfmount/pfmount/fetch/pfimg"
)

// Open has nothing to do for a reader. After one ENOSYS the kernel does not ask again, sends no
// release either and keeps its cache. A writer gets here only where root has remounted the file
// system read-write.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return fuse.EROFS
	}
	return fuse.ENOSYS
}

// Flush has nothing to do. It needs an ENOSYS of its own, or close(2) costs a round trip.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Ioctl says what a plain file says, which is how tools find out that this is no terminal.
func (f *FS) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}

// Read fills buf from the blob of a file, after waiting for it if need be. It is short only at the
// end of the file.
func (f *FS) Read(
	cancel <-chan struct{}, in *fuse.ReadIn, buf []byte,
) (fuse.ReadResult, fuse.Status) {
	r := f.row(in.NodeId)
	if in.Offset > math.MaxInt64 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	off := int64(in.Offset)
	if data, ok := f.ix.Inline(r); ok {
		return fuse.ReadResultData(cut(data, off, len(buf))), fuse.OK
	}
	d, size, ok := f.ix.Blob(r)
	if !ok {
		return nil, fuse.EINVAL
	}
	if size >= 0 && off >= size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	if f.opts.Observer != nil {
		f.opts.Observer.Reading(r, in.Pid)
	}
	f.answering.begin(r)
	defer f.answering.end(r)
	w := &waiter{drain: f.drain, cancel: cancel, pid: in.Pid}
	defer w.end()
	n, err := f.readBlob(w, d, size, buf, off)
	if err != nil {
		return nil, f.fail("read", r, d, w.explain(err))
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// readBlob reads from a blob. One that cannot be read although it is complete is damaged on disk:
// Blobs has seen so too and dropped it, so it is opened once more, which fetches it.
func (f *FS) readBlob(w *waiter, d pfimg.Digest, size int64, buf []byte, off int64) (int, error) {
	n, err := f.readOnce(w, d, size, buf, off)
	if errors.Is(err, errDamaged) {
		n, err = f.readOnce(w, d, size, buf, off)
	}
	return n, err
}

func (f *FS) readOnce(
	w *waiter, d pfimg.Digest, size int64, buf []byte, off int64,
) (n int, err error) {
	file, err := f.blobs.Open(w, d, size)
	if err != nil {
		return 0, err
	}
	defer func() {
		// The bytes were verified; a close that fails takes nothing from them.
		if cerr := file.Close(); cerr != nil {
			f.opts.Log.Debug("close a blob",
				"image", f.opts.Image, "digest", d.String(), "err", cerr)
		}
	}()
	have := file.Size()
	if size >= 0 && have != size {
		return 0, fmt.Errorf("%w: it has %d bytes instead of %d", errDamaged, have, size)
	}
	want := int(min(int64(len(buf)), max(have-off, 0)))
	if want == 0 {
		return 0, nil
	}
	n, err = file.ReadAt(buf[:want], off)
	if n == want {
		return n, nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return 0, fmt.Errorf("%w: %d of %d bytes at offset %d: %w", errDamaged, n, want, off, err)
}

// cut returns at most n bytes of data from off on.
func cut(data []byte, off int64, n int) []byte {
	if off >= int64(len(data)) {
		return nil
	}
	data = data[off:]
	return data[:min(n, len(data))]
}
