package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// testSink is a sink on a file of its own.
func testSink(t *testing.T, size int64) *sink {
	t.Helper()
	k := newSink(context.Background(), testStore(t, Options{Dir: t.TempDir()}), size)
	fd, err := unix.Open(filepath.Join(t.TempDir(), "partial"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	must(t, err)
	k.file.fd = fd
	k.file.folder, err = k.s.disk.use()
	must(t, err)
	t.Cleanup(func() { k.s.disk.done(k.file.folder) })
	return k
}

// The disk fails after some bytes were written and cannot be read back: the fill starts over, once, into memory.
func TestSinkStartsOverInMemory(t *testing.T) {
	data := content(1, 500_000)
	for name, size := range map[string]int64{"known": 500_000, "unknown": -1} {
		t.Run(name, func(t *testing.T) {
			k := testSink(t, size)
			calls := 0
			err := k.run(func(_ context.Context, w Sink) error {
				if calls++; calls == 1 {
					must(t, writePieces(w, data[:200_000], 1000))
					must(t, unix.Close(k.file.fd))
					return writePieces(w, data[200_000:], 0)
				}
				return writePieces(w, data, 0)
			})
			must(t, err)
			b := k.memoryBlob()
			if calls != 2 || !bytes.Equal(b.mem, data) {
				t.Errorf("%d calls, %d bytes", calls, len(b.mem))
			}
			if _, mem := k.s.table.usage(); mem != charge(b.mem) {
				t.Errorf("%d bytes accounted, %d used", mem, charge(b.mem))
			}
		})
	}
}

// A disk that fails stays failed for a large blob, whatever the fill makes of it.
func TestSinkErrorIsFinal(t *testing.T) {
	k := testSink(t, 100<<20)
	must(t, unix.Close(k.file.fd))
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
	if !errors.Is(err, unix.EBADF) || !isTrouble(err) {
		t.Errorf("got %v", err)
	}
	k.drop()
}

// A shorter content after Reset leaves nothing of the longer one.
func TestSinkReset(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "large": 10 << 20} {
		t.Run(name, func(t *testing.T) {
			k := testSink(t, -1)
			data := content(1, size)
			must(t, k.run(func(_ context.Context, w Sink) error {
				if err := errors.Join(writePieces(w, data, 70_000), w.Reset()); err != nil {
					return err
				}
				return writePieces(w, data[:size/2], 70_000)
			}))
			must(t, k.file.trim())
			got, err := os.ReadFile(fmt.Sprint("/proc/self/fd/", k.file.fd))
			if err != nil || !bytes.Equal(got, data[:size/2]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if n := chunksOf(int64(size/2), k.s.lim.chunk); len(k.file.sums.finish()) != int(n)*sumSize {
				t.Errorf("%d bytes of sums for %d chunks", len(k.file.sums.sums), n)
			}
			must(t, unix.Close(k.file.fd))
		})
	}
}
