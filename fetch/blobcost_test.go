package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
	"github.com/pfmount/pfmount/fetch/sched"
)

func TestNoGoroutineStays(t *testing.T) {
	p := registrytest.Layer{Content: registrytest.Noise(4 << 20)}
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	im := mustOpen(t, f.Ref(t), testOptions())
	before := runtime.NumGoroutine()
	for range 20 {
		_ = im.Blob(context.Background(), p.Logical(), -1, &registrytest.Buffer{Fail: io.ErrShortWrite})
		_ = im.Blob(context.Background(), p.Logical(), 100, &registrytest.Buffer{})
	}
	im.use.idle()
	f.CloseClientConnections()
	for i := 0; runtime.NumGoroutine() > before+2; i++ {
		if i > 3000 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// layoutWith writes a layout with these layers and opens it.
func layoutWith(t testing.TB, parts ...registrytest.Layer) *Image {
	t.Helper()
	dir := t.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	raw := registrytest.OCIManifest(t, parts...)
	pf, sig := registrytest.SignedManifest(t)
	content := [][]byte{raw, pf, sig}
	for _, p := range parts {
		content = append(content, p.Stored())
	}
	for _, b := range content {
		if err := os.WriteFile(filepath.Join(blobs,
			strings.TrimPrefix(registrytest.DigestOf(b), "sha256:")), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"),
		[]byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, registrytest.Ref(t, "oci-layout:"+dir+"@"+registrytest.DigestOf(raw)), testOptions())
}

// A blob of 4 KiB costs few allocations, on this machine's disk and over HTTP, where net/http and
// the test's own server have most of them.
func TestSmallBlobAllocations(t *testing.T) {
	p := registrytest.Layer{Content: registrytest.Noise(4 << 10)}
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	for name, c := range map[string]struct {
		im   *Image
		most float64
	}{
		"layout":   {layoutWith(t, p), 24},                      // 18 when this was written
		"registry": {mustOpen(t, f.Ref(t), testOptions()), 160}, // 136
	} {
		allocs := testing.AllocsPerRun(200, func() {
			if err := c.im.Blob(context.Background(), p.Logical(), 4<<10, discardSink{}); err != nil {
				t.Fatal(err)
			}
		})
		if t.Logf("%s: %.0f allocations", name, allocs); allocs > c.most {
			t.Errorf("%s: %.0f allocations a blob of 4 KiB, want at most %.0f", name, allocs, c.most)
		}
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
	b := registrytest.Noise(n)
	for i := range b {
		b[i] &= 0x0f
	}
	return b
}

// BenchmarkBlob compares Blob with the same work in one plain loop.
func BenchmarkBlob(b *testing.B) {
	const size = 256 << 20
	p := registrytest.Layer{Content: half(size)}
	p.Wire = encode(b, p.Content)
	im := layoutWith(b, p)
	out, err := os.Create(filepath.Join(b.TempDir(), "out"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Blob", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			s := fileSink{out}
			if err := errors.Join(s.Reset(), im.Blob(context.Background(), p.Logical(), size,
				s)); err != nil {
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

func plainLoop(im *Image, p registrytest.Layer, out fileSink) error {
	if err := out.Reset(); err != nil {
		return err
	}
	from, err := im.src.Read(context.Background(), im.reader.Root().Find(p.Logical())[0], 0)
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
	p := registrytest.Layer{Content: registrytest.Noise(4 << 10)}
	im := layoutWith(b, p)
	b.ReportAllocs()
	for b.Loop() {
		if err := im.Blob(context.Background(), p.Logical(), 4<<10, discardSink{}); err != nil {
			b.Fatal(err)
		}
	}
}

// gated is a Sink that waits for its gate at the first bytes, and counts the waiting.
type gated struct {
	registrytest.Buffer
	gate   chan struct{}
	inside *atomic.Int32
	once   sync.Once
}

func (g *gated) Write(p []byte) (int, error) {
	g.once.Do(func() {
		g.inside.Add(1)
		<-g.gate
	})
	return g.Buffer.Write(p)
}

// TestRooms: however many want large blobs, and wherever they come from, only MaxConns hold buffers
// for one. Small blobs do not wait for them, and a fetch cancelled while it waits leaves nothing
// behind.
func TestRooms(t *testing.T) {
	large, medium, small := registrytest.Layer{Content: registrytest.Noise(2 << 20)}, registrytest.Layer{Content: registrytest.Noise(100 << 10)}, registrytest.Layer{Content: registrytest.Noise(100)}
	im := layoutWith(t, large, medium, small)
	rooms := int32(im.options.Registry.MaxConns)
	var inside atomic.Int32
	var all sync.WaitGroup
	gate := make(chan struct{})
	for i := range 3 * rooms {
		p := []registrytest.Layer{large, medium}[i%2]
		all.Go(func() {
			g := &gated{gate: gate, inside: &inside}
			if err := im.Blob(context.Background(), p.Logical(), int64(len(p.Content)),
				g); err != nil || !bytes.Equal(g.Bytes(), p.Content) {
				t.Errorf("%d bytes, %v", g.Len(), err)
			}
		})
	}
	for i := 0; inside.Load() < rooms; i++ {
		if i > 30_000 {
			t.Fatalf("only %d at once", inside.Load())
		}
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := im.Blob(ctx, large.Logical(), int64(len(large.Content)),
		&registrytest.Buffer{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	if err := im.Blob(context.Background(), small.Logical(), int64(len(small.Content)),
		&registrytest.Buffer{}); err != nil {
		t.Errorf("a small one: %v", err)
	}
	if n := inside.Load(); n != rooms {
		t.Errorf("%d at once, want %d", n, rooms)
	}
	close(gate)
	all.Wait()
	ctx, cancel = context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i := range rooms {
		if _, err := im.decoders.Enter(ctx); err != nil {
			t.Fatalf("only %d of %d rooms are free again: %v", i, rooms, err)
		}
	}
}

// TestRoomForReaders: background fetches take half of the room for large blobs at most, and the
// rest when they become urgent.
func TestRoomForReaders(t *testing.T) {
	d := artifact.NewDecoders(4)
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	enter := func(u *sched.Priority) func() {
		leave, err := d.Enter(sched.WithPriority(ctx, u))
		if err != nil {
			t.Fatal(err)
		}
		return leave
	}
	defer enter(sched.NewPriority(sched.Ahead))()
	defer enter(sched.NewPriority(sched.Background))()
	third := sched.NewPriority(sched.Ahead)
	entered := make(chan func())
	go func() { entered <- enter(third) }()
	defer enter(sched.NewPriority(sched.Reader))()
	select {
	case <-entered:
		t.Error("a third that nobody waits for is let in")
	case <-time.After(50 * time.Millisecond):
		third.Raise(sched.Reader)
		(<-entered)()
	}
}
