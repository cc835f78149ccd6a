package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pfmount/pfmount/cache/disk"
	"github.com/pfmount/pfmount/cache/disk/layout"
)

func TestOpen(t *testing.T) {
	t.Parallel()
	const large = 3<<20 + 5
	for _, size := range []int{0, 1, 3, 4, 5, 15, 16, 17, 20, 100, 70_000, large} {
		for _, piece := range []int{0, 1, 7, 4096, 64 << 10} {
			if piece == 1 && size > 1000 {
				continue
			}
			for _, known := range []bool{true, false} {
				for _, mode := range []disk.VerifyMode{disk.VerifyFirst, disk.VerifyAlways} {
					t.Run(fmt.Sprintf("%d by %d known %v %v", size, piece, known, mode), func(t *testing.T) {
						testOpen(t, size, piece, known, mode)
					})
				}
			}
		}
	}
}

// testOpen fills a blob, reads it, and reads it again in another Store, as another process would.
func testOpen(t *testing.T, size, piece int, known bool, mode disk.VerifyMode) {
	dir := t.TempDir()
	data := content(1, size)
	key := sha256.Sum256(data)
	src := &source{piece: piece}
	want := int64(-1)
	if known {
		want = int64(size)
	}
	fill := src.fill(data)
	for range 2 {
		s := testStore(t, Options{Dir: dir, Verify: mode}, tiny, func(l *limits) {
			if size > 1000 { // 32 bytes for every four would be the test
				l.Chunk = 4096
			}
		})
		f, err := s.Open(context.Background(), key, want, fill)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(same(f, data), f.Close()); err != nil {
			t.Fatal(err)
		}
		if n, ok := s.Stat(key); !ok || n != int64(size) {
			t.Errorf("Stat = %d, %v, want %d", n, ok, size)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		fill = noFill
	}
	if n := src.fills.Load(); n != 1 {
		t.Errorf("%d fills, want 1", n)
	}
	if left, err := os.ReadDir(dir + "/tmp"); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
	if used, usage := du(t, dir), usageOf(t, dir); used > usage {
		t.Errorf("usage %d is less than du %d", usage, used)
	}
}

func TestReadAt(t *testing.T) {
	t.Parallel()
	data := []byte("0123456789abcdefghijklm") // above tiny's small: read by chunks of 4
	s := testStore(t, Options{Dir: t.TempDir()}, tiny)
	f, err := s.Open(context.Background(), sha256.Sum256(data), -1, new(source).fill(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, n  int64
		want    string
		wantErr error
	}{
		{0, 4, "0123", nil},
		{0, 5, "01234", nil},
		{3, 2, "34", nil},
		{3, 10, "3456789abc", nil},
		{20, 3, "klm", nil},
		{20, 4, "klm", io.EOF},
		{22, 100, "m", io.EOF},
		{23, 1, "", io.EOF},
		{1000, 1, "", io.EOF},
		{23, 0, "", io.EOF},
		{5, 0, "", nil},
	} {
		p := make([]byte, c.n)
		n, err := f.ReadAt(p, c.off)
		if string(p[:n]) != c.want || err != c.wantErr {
			t.Errorf("ReadAt(%d, %d) = %q, %v, want %q, %v", c.off, c.n, p[:n], err, c.want, c.wantErr)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset is no error")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if err := get(s, data, noFill); err != nil {
		t.Errorf("after a second Close: %v", err)
	}
}

// A read and a Close of one File at once: the read gets the blob's bytes or ErrClosed, never those
// of another file that took over the descriptor.
func TestReadWhileClosing(t *testing.T) {
	t.Parallel()
	s := testStore(t, Options{Dir: t.TempDir(), OpenFiles: 4})
	blobs := [][]byte{content(0, 5000), content(1, 5000), content(2, 5000), content(3, 5000),
		content(4, 5000), content(5, 5000)}
	for round := range 300 {
		data := blobs[round%len(blobs)]
		f, err := s.Open(context.Background(), sha256.Sum256(data), 5000, new(source).fill(data))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				p := make([]byte, 5000)
				if n, err := f.ReadAt(p, 0); err == nil && !bytes.Equal(p[:n], data) {
					t.Error("wrong bytes")
				} else if err != nil && !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
			})
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
	if n := s.Stats().OpenFiles; n > 4 {
		t.Errorf("%d files open, limit 4", n)
	}
}

func TestFillLength(t *testing.T) {
	t.Parallel()
	data := content(1, 100)
	key := sha256.Sum256(data)
	for name, c := range map[string]struct {
		size    int64
		fill    Fill
		wantErr error
	}{
		"short": {101, new(source).fill(data), ErrSize},
		"long":  {99, new(source).fill(data), ErrSize},
		"long, swallowed": {50,
			func(_ context.Context, w Sink) error {
				_, _ = w.Write(data[:50])
				_,
					_ = w.Write(data)
				return nil
			}, ErrSize},
		"nothing":          {100, func(context.Context, Sink) error { return nil }, ErrSize},
		"nothing, unknown": {-1, new(source).fill(nil), nil},
		"started over": {100, func(_ context.Context, w Sink) error {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
			if err := w.Reset(); err != nil {
				return err
			}
			return writePieces(w, data, 7)
		}, nil},
		"started over after much": {100, func(_ context.Context, w Sink) error {
			for range 3 {
				if err := errors.Join(writePieces(w, data[:90], 30), w.Reset()); err != nil {
					return err
				}
			}
			return writePieces(w, data, 0)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := testStore(t, Options{Dir: dir}, tiny)
			f, err := s.Open(context.Background(), key, c.size, c.fill)
			if !errors.Is(err, c.wantErr) {
				t.Fatalf("error %v, want %v", err, c.wantErr)
			}
			if err == nil {
				if f.Size() > 0 {
					err = same(f, data)
				}
				if err := errors.Join(err, f.Close()); err != nil {
					t.Error(err)
				}
			} else if exists(blobFile(dir, data)) || s.Stats().Failed != 1 {
				t.Errorf("a failed fill left its blob, or was not counted: %+v", s.Stats())
			}
		})
	}
}

// TestWrongSizeAsked opens a sound blob with a wrong size: an error, and the blob stays.
func TestWrongSizeAsked(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"small": 10, "large": 100} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				data := content(1, size)
				first := testStore(t, Options{Dir: dir}, tiny)
				mustGet(t, first, data, new(source).fill(data))
				must(t, first.Close())
				s := testStore(t, Options{Dir: dir}, tiny)
				for range 2 { // from disk, then from the table
					if _, err := s.Open(context.Background(), sha256.Sum256(data), int64(size+1),
						noFill); !errors.Is(err, ErrSize) {
						t.Errorf("error %v, want ErrSize", err)
					}
					time.Sleep(s.lim.failureTTL)
					mustGet(t, s, data, noFill)
				}
				if n := s.Stats().Damaged; n != 0 {
					t.Errorf("%d damaged", n)
				}
				must(t, s.Close())
			})
		})
	}
}

func TestVerifyMode(t *testing.T) {
	t.Parallel()
	for _, m := range []disk.VerifyMode{disk.VerifyFirst, disk.VerifyAlways} {
		if got, err := disk.ParseVerifyMode(m.String()); err != nil || got != m {
			t.Errorf("disk.ParseVerifyMode(%q) = %v, %v", m.String(), got, err)
		}
	}
	for _, bad := range []string{"", "First", "often", "first "} {
		if _, err := disk.ParseVerifyMode(bad); err == nil {
			t.Errorf("disk.ParseVerifyMode(%q): no error", bad)
		}
	}
}

func TestHitAllocates(t *testing.T) {
	s := testStore(t, Options{Dir: t.TempDir()})
	data := content(1, 5000)
	mustGet(t, s, data, new(source).fill(data))
	key, ctx, p := sha256.Sum256(data), context.Background(), make([]byte, 4096)
	n := testing.AllocsPerRun(1000, func() {
		f, err := s.Open(ctx, key, 5000, noFill)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	})
	if n > 32 {
		t.Errorf("%v allocations a hit, want at most 1", n)
	}
}

func BenchmarkHit(b *testing.B) {
	s, err := tryStore(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := content(1, 5000)
	if err := get(s, data, new(source).fill(data)); err != nil {
		b.Fatal(err)
	}
	key, ctx := sha256.Sum256(data), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		f, err := s.Open(ctx, key, 5000, noFill)
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}

// BenchmarkReopen is a cached blob that is not open, as after a remount: found on disk, checked, closed.
func BenchmarkReopen(b *testing.B) {
	s, err := tryStore(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := content(1, 5000)
	if err := get(s, data, new(source).fill(data)); err != nil {
		b.Fatal(err)
	}
	key, ctx := sha256.Sum256(data), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		clearTable(s)
		f, err := s.Open(ctx, key, 5000, noFill)
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}

// A fill of 4 KiB costs few allocations: a tree has thousands of such files.
func TestSmallFillAllocations(t *testing.T) {
	s := testStore(t, Options{Dir: t.TempDir()})
	data, i := make([]byte, 4096), 0
	fill := func(_ context.Context, w Sink) error {
		_, err := w.Write(data)
		return err
	}
	n := testing.AllocsPerRun(300, func() {
		binary.LittleEndian.PutUint64(data, uint64(i))
		i++
		f, err := s.Open(context.Background(), sha256.Sum256(data), 4096, fill)
		must(t, err)
		must(t, f.Close())
	})
	if n > 32 { // 25 when this was written; the race detector adds some
		t.Errorf("%.0f allocations a fill of 4 KiB, want at most 32", n)
	}
}

func BenchmarkSmallFill(b *testing.B) {
	s, err := tryStore(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := make([]byte, 4096)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		copy(data, fmt.Sprint(i, " "))
		key := sha256.Sum256(data)
		f, err := s.Open(context.Background(), key, 4096, new(source).fill(data))
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}

func BenchmarkLargeFill(b *testing.B) {
	const size = 1 << 30
	data := content(1, 4<<20)
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		s, err := tryStore(Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		f, err := s.Open(context.Background(), [32]byte{byte(i)}, size,
			func(_ context.Context, w Sink) error {
				for n := 0; n < size; n += len(data) {
					if err := writePieces(w, data, 128<<10); err != nil {
						return err
					}
				}
				return nil
			})
		if err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
		_ = s.Close()
	}
}

// TestHas: a blob is there from the end of its fill on, and in the memory of no store when its file is gone.
func TestHas(t *testing.T) {
	t.Parallel()
	dir, data := t.TempDir(), content(1, 1000)
	key := sha256.Sum256(data)
	s := testStore(t, Options{Dir: dir})
	if s.Has(key) {
		t.Error("it is there before its fill")
	}
	mustGet(t, s, data, new(source).fill(data))
	other := testStore(t, Options{Dir: dir})
	if !s.Has(key) || !other.Has(key) {
		t.Error("it is not there after its fill")
	}
	must(t, os.Remove(dir+"/blobs/"+layout.BlobPath(key)))
	if other.Has(key) {
		t.Error("it is there without a file")
	}
}
