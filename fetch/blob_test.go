package fetch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/fetch/artifact"
	"github.com/pfmount/pfmount/fetch/pfimg"
	"github.com/pfmount/pfmount/fetch/registry/registrytest"
)

func encode(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enc.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func skippable(n int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(n))
	return append(b, make([]byte, n)...)
}

// rleBomb is a frame of blocks of 128 KiB of zeroes, 4 bytes each, with a given window descriptor.
func rleBomb(size int64, window byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window}
	const block = 128 << 10
	for ; size > 0; size -= block {
		last := uint32(0)
		if size <= block {
			last = 1
		}
		h := last | 1<<1 | uint32(min(size, block))<<3
		b = append(b, byte(h), byte(h>>8), byte(h>>16), 0)
	}
	return b
}

const window8M = 13 << 3 // 1 KiB << 13

func TestBlob(t *testing.T) {
	small, large := []byte("hello hello hello"), registrytest.Noise(3<<20)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	bigWindow := encode(t, bytes.Repeat(large, 3), zstd.WithWindowSize(64<<20))
	zeroes := make([]byte, 10<<20)
	tests := []struct {
		name    string
		content []byte
		wire    []byte // nil: compress(content)
		sizes   []int64
		want    error
		text    string
	}{
		{"small", small, nil, []int64{17, -1}, nil, ""},
		{"large", large, nil, []int64{3 << 20, -1}, nil, ""},
		{"empty", nil, encode(t, nil, zstd.WithZeroFrames(true)), []int64{0, -1}, nil, ""},
		{"exactly 1 MiB", large[:1<<20], nil, []int64{1 << 20, -1}, nil, ""},
		{"1 MiB and a byte", large[:1<<20+1], nil, []int64{1<<20 + 1, -1}, nil, ""},
		{"streamed, without content size", small, encode(t, small), []int64{17, -1}, nil, ""},
		{"several frames", join(small, small),
			join(registrytest.Compress(small), registrytest.Compress(small)), []int64{34, -1}, nil, ""},
		{"skippable frames", small, join(skippable(5), registrytest.Compress(small), skippable(0),
			skippable(9)), []int64{17, -1}, nil, ""},
		{"large, several frames", join(large, small),
			join(encode(t, large), registrytest.Compress(small), skippable(3)),
			[]int64{3<<20 + 17, -1}, nil, ""},
		{"checksum", large, encode(t, large, zstd.WithEncoderCRC(true)), []int64{3 << 20, -1}, nil, ""},
		{"window of 64 MiB", bytes.Repeat(large, 3), bigWindow, []int64{9 << 20, -1}, nil, ""},
		{"window of 64 MiB in the second frame", join(small, bytes.Repeat(large, 3)),
			join(registrytest.Compress(small), bigWindow), []int64{9<<20 + 17, -1}, nil, ""},
		{"zeroes", zeroes, nil, []int64{10 << 20, -1}, nil, ""},

		{"signed size too small", small, nil, []int64{16}, pfimg.ErrIntegrity, "more than"},
		{"signed size too large", small, nil, []int64{18}, pfimg.ErrIntegrity, "17 bytes, not 18"},
		{"large, signed size too small", large, nil, []int64{3<<20 - 1}, pfimg.ErrIntegrity, "more than"},
		{"large, signed size too large", large, nil, []int64{3<<20 + 1}, pfimg.ErrIntegrity, "bytes, not"},
		{"bomb", small, rleBomb(10<<30, window8M), []int64{1 << 20, 5 << 20, 17}, pfimg.ErrIntegrity, ""},
		{"window of 512 MiB", small, rleBomb(17, 19<<3), []int64{2 << 20, -1}, pfimg.ErrIntegrity, "128 MiB"},
		{"one segment of 512 MiB", small, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x20, 1, 0,
			0}, []int64{17, 2 << 20, -1}, pfimg.ErrIntegrity, "128 MiB"},
		{"not zstd", small, []byte("this is not zstd at all"), []int64{17, 2 << 20, -1},
			pfimg.ErrIntegrity, "not zstd"},
		{"nothing stored", nil, []byte{}, []int64{0, -1}, pfimg.ErrIntegrity, "nothing is stored"},
		{"one trailing byte", small, append(registrytest.Compress(small), 0), []int64{17, -1},
			pfimg.ErrIntegrity, ""},
		{"two trailing bytes", small, append(registrytest.Compress(small), 0x28, 0xb5),
			[]int64{17, -1}, pfimg.ErrIntegrity, ""},
		{"three trailing bytes", small, append(registrytest.Compress(small), 0x28, 0xb5, 0x2f),
			[]int64{17, -1}, pfimg.ErrIntegrity, ""},
		{"a trailing magic", small, append(registrytest.Compress(small), 0x28, 0xb5, 0x2f, 0xfd),
			[]int64{17, -1}, pfimg.ErrIntegrity, ""},
		{"trailing text", large, append(registrytest.Compress(large), "trailing"...),
			[]int64{3 << 20, -1}, pfimg.ErrIntegrity, "not zstd"},
		{"truncated", small, registrytest.Compress(small)[:20], []int64{17, -1}, pfimg.ErrIntegrity, "early"},
		{"large, truncated", large, registrytest.Compress(large)[:2<<20], []int64{3 << 20, -1},
			pfimg.ErrIntegrity, "early"},
		{"large, truncated skippable frame", large,
			append(registrytest.Compress(large), skippable(100)[:50]...), []int64{3 << 20, -1},
			pfimg.ErrIntegrity, "early"},
		{"wrong checksum", large, badCRC(encode(t, large, zstd.WithEncoderCRC(true))),
			[]int64{3 << 20, -1}, pfimg.ErrIntegrity, "zstd"},
		{"other content", small, registrytest.Compress([]byte("hullo hullo hullo")),
			[]int64{17, -1}, pfimg.ErrIntegrity, "hashes to"},
		{"a dictionary", small, []byte{0x28, 0xb5, 0x2f, 0xfd, 1, 0, 7, 1, 0, 0}, []int64{17, -1},
			pfimg.ErrIntegrity, "dictionary"},
	}
	for _, tt := range tests {
		for _, size := range tt.sizes {
			p := registrytest.Layer{Content: tt.content, Wire: tt.wire}
			f := registrytest.NewServer(t)
			f.Serve(t, p)
			im := mustOpen(t, f.Ref(t), testOptions())
			var b registrytest.Buffer
			err := im.Blob(context.Background(), p.Logical(), size, &b)
			if !errors.Is(err, tt.want) || tt.want != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s, size %d: got %v, want %v with %q", tt.name, size, err, tt.want, tt.text)
				continue
			}
			if tt.want == nil && !bytes.Equal(b.Bytes(), tt.content) {
				t.Errorf("%s, size %d: got %d other bytes", tt.name, size, b.Len())
			}
			if size >= 0 && int64(b.Len()) > size+1 {
				t.Errorf("%s, size %d: the sink saw %d bytes", tt.name, size, b.Len())
			}
			if tt.want != nil && f.Count(p.BlobPath()) > 2 {
				t.Errorf("%s, size %d: %d requests", tt.name, size, f.Count(p.BlobPath()))
			}
		}
	}
}

func badCRC(b []byte) []byte {
	b[len(b)-1] ^= 1
	return b
}

// TestBlobBounds asks for blobs whose stored size alone says that they are no good.
func TestBlobBounds(t *testing.T) {
	content := []byte("x")
	p := registrytest.Layer{Content: content, Size: 500 << 30} // 500 GB of skippable frames
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	im := mustOpen(t, f.Ref(t), testOptions())
	var b registrytest.Buffer
	if err := im.Blob(context.Background(), p.Logical(), 1, &b); !errors.Is(err, pfimg.ErrIntegrity) {
		t.Errorf("got %v, want ErrIntegrity", err)
	}
	if n := f.Count(p.BlobPath()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}

	// Without a signed size the descriptor still bounds what is read, and MaxBlobSize what is
	// decoded.
	frames := registrytest.Layer{Content: content, Wire: bytes.Repeat(skippable(64<<10), 40)}
	bomb := registrytest.Layer{Content: []byte("y"), Wire: rleBomb(1<<30, window8M)}
	f.Serve(t, frames, bomb)
	o := testOptions()
	o.MaxBlobSize = 1 << 20
	im = mustOpen(t, f.Ref(t), o)
	for _, p := range []registrytest.Layer{frames, bomb} {
		if err := im.Blob(context.Background(), p.Logical(), -1, &b); !errors.Is(err,
			pfimg.ErrIntegrity) || b.Len() > 1<<20 {
			t.Errorf("got %v and %d bytes", err, b.Len())
		}
	}
}

// TestEndlessSkippableFrames serves a body that never ends: it is read as far as the descriptor
// goes.
func TestEndlessSkippableFrames(t *testing.T) {
	p := registrytest.Layer{Content: []byte("x"), Wire: skippable(1 << 20)}
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/"+p.WireDigest()) {
			return false
		}
		for frame := skippable(64 << 10); ; {
			if _, err := w.Write(frame); err != nil {
				return true
			}
		}
	})
	im := mustOpen(t, f.Ref(t), testOptions())
	var b registrytest.Buffer
	if err := im.Blob(context.Background(), p.Logical(), 1<<20, &b); !errors.Is(err, pfimg.ErrIntegrity) {
		t.Errorf("got %v, want ErrIntegrity", err)
	}
	if got := im.Fetched().Bytes; got > 4<<20 {
		t.Errorf("%d bytes were read", got)
	}
}

func TestAnnotatedSizeIsHeld(t *testing.T) {
	content := []byte("annotated")
	path := "blobs/sha256/" + registrytest.Layer{Content: content}.Logical().Hex() + ".zst"
	for _, tt := range []struct {
		size string
		want error
		hint int64
	}{{"9", nil, 9}, {"8", pfimg.ErrIntegrity, 8}, {"10", pfimg.ErrIntegrity, 10}, {"-3", nil,
		-1}, {"x", nil, -1}} {
		p := registrytest.Layer{Content: content,
			Annotations: map[string]string{artifact.PathAnnotation: path,
				artifact.DecodedSizeAnnotation: tt.size}}
		f := registrytest.NewServer(t)
		f.Serve(t, p)
		im := mustOpen(t, f.Ref(t), testOptions())
		if _, decoded, ok := im.Wire(p.Logical()); !ok || decoded != tt.hint {
			t.Errorf("%s: the hint is %d, %v, want %d", tt.size, decoded, ok, tt.hint)
		}
		if err := im.Blob(context.Background(), p.Logical(), -1,
			&registrytest.Buffer{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.size, err, tt.want)
		}
	}
}

func TestTwoLayersClaimOneDigest(t *testing.T) {
	content := []byte("the right one")
	bad := registrytest.Layer{Content: content, Wire: registrytest.Compress([]byte("a wrong one"))}
	f := registrytest.NewServer(t)
	f.Serve(t, bad, registrytest.Layer{Content: content})
	im := mustOpen(t, f.Ref(t), testOptions())
	for _, size := range []int64{int64(len(content)), -1} {
		var b registrytest.Buffer
		if err := im.Blob(context.Background(), bad.Logical(), size, &b); err != nil ||
			b.String() != string(content) {
			t.Errorf("size %d: got %q, %v", size, &b, err)
		}
	}
	f.Serve(t, bad)
	im = mustOpen(t, f.Ref(t), testOptions())
	if err := im.Blob(context.Background(), bad.Logical(), -1,
		&registrytest.Buffer{}); !errors.Is(err, pfimg.ErrIntegrity) {
		t.Errorf("only a wrong layer: got %v", err)
	}
}

func TestUnnamedLayers(t *testing.T) {
	none := map[string]string{}
	a := registrytest.Layer{Content: []byte("unnamed a"), Annotations: none}
	bad := registrytest.Layer{Content: []byte("bad"), Wire: []byte("no zstd"), Annotations: none}
	big := registrytest.Layer{Content: registrytest.Noise(2 << 20),
		Annotations: map[string]string{artifact.PathAnnotation: "elsewhere"}}
	named := registrytest.Layer{Content: []byte("named")}
	f := registrytest.NewServer(t)
	f.Serve(t, a, bad, big, named)
	im := mustOpen(t, f.Ref(t), testOptions())
	read := func(p registrytest.Layer) error {
		var b registrytest.Buffer
		err := im.Blob(context.Background(), p.Logical(), int64(len(p.Content)), &b)
		if err == nil && !bytes.Equal(b.Bytes(), p.Content) {
			t.Errorf("%.20q: got %d other bytes", p.Content, b.Len())
		}
		return err
	}
	if err := read(named); err != nil || f.Count(a.BlobPath()) != 0 {
		t.Errorf("named: %v, and %d requests for a layer that was not needed", err, f.Count(a.BlobPath()))
	}
	if wire, _, ok := im.Wire(big.Logical()); !ok || wire != -1 {
		t.Errorf("before looking Wire says %d, %v", wire, ok)
	}
	for _, p := range []registrytest.Layer{big, a} {
		if err := read(p); err != nil {
			t.Errorf("%.20q: %v", p.Content, err)
		}
	}
	missing := registrytest.Layer{Content: []byte("nowhere")}
	for range 2 {
		if err := read(missing); !errors.Is(err, artifact.ErrMissing) || !errors.Is(err, pfimg.ErrIntegrity) {
			t.Errorf("got %v, want ErrMissing", err)
		}
	}
	if _, _, ok := im.Wire(missing.Logical()); ok {
		t.Error("Wire has a blob that is nowhere")
	}
	if n := f.Count(a.BlobPath()); n != 2 {
		t.Errorf("%d requests for a, want one to look and one to read", n)
	}
	if n := f.Count(bad.BlobPath()); n != 1 {
		t.Errorf("%d requests for the damaged layer, want 1", n)
	}
}

func TestSinkErrorComesBack(t *testing.T) {
	full := errors.New("disk full")
	parts := []registrytest.Layer{{Content: []byte("small")}, {Content: registrytest.Noise(4 << 20)}}
	f := registrytest.NewServer(t)
	f.Serve(t, parts...)
	im := mustOpen(t, f.Ref(t), testOptions())
	for _, p := range parts {
		for _, size := range []int64{int64(len(p.Content)), -1} {
			if err := im.Blob(context.Background(), p.Logical(), size,
				&registrytest.Buffer{Fail: full}); err != full {
				t.Errorf("got %v, want the sink's own error", err)
			}
		}
	}
}

func TestCloseEndsBlob(t *testing.T) {
	p := registrytest.Layer{Content: registrytest.Noise(2 << 20)}
	f := registrytest.NewServer(t)
	f.Serve(t, p)
	release := make(chan struct{})
	defer close(release)
	f.Answer(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != p.BlobPath() {
			return false
		}
		_, _ = w.Write(p.Stored()[:1<<20])
		w.(http.Flusher).Flush()
		<-release
		return true
	})
	im := mustOpen(t, f.Ref(t), testOptions())
	got := make(chan error, 2)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { got <- im.Blob(ctx, p.Logical(), -1, &registrytest.Buffer{}) }()
	time.Sleep(50 * time.Millisecond)
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	go func() { got <- im.Blob(context.Background(), p.Logical(), -1, &registrytest.Buffer{}) }()
	time.Sleep(50 * time.Millisecond)
	if err := im.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, artifact.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
	if err := im.Blob(context.Background(), p.Logical(), -1,
		&registrytest.Buffer{}); !errors.Is(err, artifact.ErrClosed) {
		t.Errorf("after Close: got %v", err)
	}
}
