package cache

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pfmount/pfmount/cache/disk/layout"
)

// testSink is a sink on a claimed file.
func testSink(t *testing.T, size int64) *sink {
	t.Helper()
	s := testStore(t, Options{Dir: t.TempDir()})
	p, _, err := s.dir.Claim(context.Background(), digest{1}, size)
	must(t, err)
	return newSink(context.Background(), s, p, size)
}

// spoil makes the file under a sink fail, as a disk does: it can be neither written nor read.
func (k *sink) spoil(t *testing.T) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || to != filepath.Join(k.s.dir.Path(), "tmp", layout.BlobName(digest{1})) {
			continue
		}
		// Its mode may be changed through the descriptor, so it must be a file of the test's own.
		name := filepath.Join(t.TempDir(), "empty")
		must(t, os.WriteFile(name, nil, 0o600))
		empty, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Dup3(empty, helperNumber(fd.Name()), unix.O_CLOEXEC))
		must(t, unix.Close(empty))
		return
	}
	t.Fatal("no partial file is open")
}

// The disk fails after some bytes were written and cannot be read back: the fill starts over, once,
// into memory.
func TestSinkStartsOverInMemory(t *testing.T) {
	t.Parallel()
	data := content(1, 500_000)
	for name, size := range map[string]int64{"known": 500_000, "unknown": -1} {
		t.Run(name, func(t *testing.T) {
			k := testSink(t, size)
			calls := 0
			err := k.run(func(_ context.Context, w Sink) error {
				if calls++; calls == 1 {
					must(t, writePieces(w, data[:200_000], 1000))
					k.spoil(t)
					return writePieces(w, data[200_000:], 0)
				}
				return writePieces(w, data, 0)
			})
			must(t, err)
			b := k.memoryBlob()
			if calls != 2 || !bytes.Equal(b.mem, data) {
				t.Errorf("%d calls, %d bytes", calls, len(b.mem))
			}
			k.file.Abandon(nil)
			if _, mem := k.s.table.usage(); mem != charge(b.mem) {
				t.Errorf("%d bytes accounted, %d used", mem, charge(b.mem))
			}
		})
	}
}

// A disk that fails stays failed for a large blob, whatever the fill makes of it.
func TestSinkErrorIsFinal(t *testing.T) {
	t.Parallel()
	k := testSink(t, 100<<20)
	k.spoil(t)
	data := content(1, 3<<20)
	err := k.run(func(_ context.Context, w Sink) error {
		for range 5 {
			_ = writePieces(w, data, 100_000)
		}
		if err := w.Reset(); !errors.Is(err, unix.EBADF) {
			t.Errorf("Reset: %v", err)
		}
		if _, err := w.Write(data); !errors.Is(err, unix.EBADF) {
			t.Errorf("Write: %v", err)
		}
		return errors.New("something else")
	})
	if !errors.Is(err, unix.EBADF) || !layout.IsError(err) {
		t.Errorf("got %v", err)
	}
	k.drop()
	k.file.Abandon(err)
}

// A shorter content after Reset leaves nothing of the longer one.
func TestSinkReset(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 1000, "large": 20 << 20} {
		t.Run(name, func(t *testing.T) {
			k := testSink(t, -1)
			data := content(1, size)
			must(t, k.run(func(_ context.Context, w Sink) error {
				if err := errors.Join(writePieces(w, data, 70_000), w.Reset()); err != nil {
					return err
				}
				return writePieces(w, data[:size/2], 70_000)
			}))
			b, err := k.file.Publish(context.Background())
			must(t, err)
			defer b.Close()
			got := make([]byte, size/2)
			if err := b.Read(got, 0); err != nil || b.Size() != int64(size/2) ||
				!bytes.Equal(got, data[:size/2]) {
				t.Errorf("%d bytes, %v", b.Size(), err)
			}
			sums, err := os.ReadFile(filepath.Join(k.s.dir.Path(), "blobs",
				layout.BlobPath(digest{1})+layout.SumsSuffix))
			if b.Size() <= k.s.lim.Small {
				return // it has no sidecar
			}
			if want := layout.SumsSize(b.Size(), k.s.lim.Chunk); err != nil || int64(len(sums)) != want {
				t.Errorf("a sidecar of %d bytes, %v, want %d", len(sums), err, want)
			}
		})
	}
}
