package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

func TestNoGoroutineStays(t *testing.T) {
	p := part{content: noise(4 << 20)}
	f := newFake(t)
	f.serve(t, p)
	im := mustOpen(t, f.ref(t), testOptions())
	before := runtime.NumGoroutine()
	for range 20 {
		_ = im.Blob(context.Background(), p.logical(), -1, &buffer{fail: io.ErrShortWrite})
		_ = im.Blob(context.Background(), p.logical(), 100, &buffer{})
	}
	im.use.idle()
	f.CloseClientConnections()
	for i := 0; runtime.NumGoroutine() > before+2; i++ {
		if i > 100 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// layoutWith writes a layout with these layers and opens it.
func layoutWith(t testing.TB, parts ...part) *Image {
	t.Helper()
	dir := t.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	raw := makeManifest(t, parts...)
	pf, sig := signedManifest(t)
	content := [][]byte{raw, pf, sig}
	for _, p := range parts {
		content = append(content, p.stored())
	}
	for _, b := range content {
		if err := os.WriteFile(filepath.Join(blobs, strings.TrimPrefix(digestOf(b), "sha256:")), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, mustRef(t, "oci-layout:"+dir+"@"+digestOf(raw)), testOptions())
}

func TestSmallBlobAllocations(t *testing.T) {
	p := part{content: noise(4 << 10)}
	im := layoutWith(t, p)
	sink := discardSink{}
	allocs := testing.AllocsPerRun(200, func() {
		if err := im.Blob(context.Background(), p.logical(), 4<<10, sink); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 40 {
		t.Errorf("%.0f allocations a blob of 4 KiB, want at most 40", allocs)
	}
}

type discardSink struct{}

func (discardSink) Write(p []byte) (int, error) { return len(p), nil }
func (discardSink) Reset() error                { return nil }

type fileSink struct{ *os.File }

func (f fileSink) Reset() error {
	_, err := f.Seek(0, io.SeekStart)
	return errors.Join(err, f.Truncate(0))
}

// half returns n bytes that compress to about a half.
func half(n int) []byte {
	b := noise(n)
	for i := range b {
		b[i] &= 0x0f
	}
	return b
}

// BenchmarkBlob compares Blob with the same work in one plain loop.
func BenchmarkBlob(b *testing.B) {
	const size = 256 << 20
	p := part{content: half(size)}
	p.wire = encode(b, p.content)
	im := layoutWith(b, p)
	out, err := os.Create(filepath.Join(b.TempDir(), "out"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Blob", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			s := fileSink{out}
			if err := errors.Join(s.Reset(), im.Blob(context.Background(), p.logical(), size, s)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("loop", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if err := plainLoop(im, p, fileSink{out}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func plainLoop(im *Image, p part, out fileSink) error {
	if err := out.Reset(); err != nil {
		return err
	}
	from, err := im.src.read(context.Background(), im.root.find(p.logical())[0], 0)
	if err != nil {
		return err
	}
	wire, content := sha256.New(), sha256.New()
	dec, err := zstd.NewReader(io.TeeReader(from, wire), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer dec.Close()
	_, err = io.Copy(io.MultiWriter(content, out), dec)
	return errors.Join(err, from.Close())
}

// BenchmarkSmallBlob is one file of a tree.
func BenchmarkSmallBlob(b *testing.B) {
	p := part{content: noise(4 << 10)}
	im := layoutWith(b, p)
	b.ReportAllocs()
	for b.Loop() {
		if err := im.Blob(context.Background(), p.logical(), 4<<10, discardSink{}); err != nil {
			b.Fatal(err)
		}
	}
}
