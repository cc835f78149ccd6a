package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// hostile is one way to spoil the layer of a file. Each has a file of its own, with a content of its own.
type hostile struct {
	name  string
	size  int64 // of the file as signed; 0: a few bytes
	spoil func(t *testing.T, m *imgbuild.Image, l *imgbuild.Layer)
	fault faultreg.Fault // of the layer's GET; nil: none
	quiet bool           // the layer must not even be asked for
}

// zstd's magic number, and a header without content size for a window of 8 MiB (RFC 8878, 3.1.1).
const frameHead = "\x28\xb5\x2f\xfd\x00\x68"

// bomb is a frame that decodes to n times 128 KiB of zeros, four bytes each (RFC 8878, 3.1.1.2: RLE blocks).
func bomb(n int) []byte {
	const size = 128 << 10
	b := append([]byte(frameHead),
		bytes.Repeat([]byte{(size<<3 | 1<<1) & 0xff, size << 3 >> 8 & 0xff, size << 3 >> 16, 0}, n)...)
	b[len(b)-4] |= 1 // the last block
	return b
}

// skippable is n bytes of frames that decode to nothing (RFC 8878, 3.1.2), a multiple of 64 KiB.
func skippable(n int) []byte {
	frame := make([]byte, 64<<10)
	copy(frame, "\x50\x2a\x4d\x18\xf8\xff\x00\x00") // then 64 KiB less these 8 bytes
	return bytes.Repeat(frame, n/len(frame))
}

// wide is a frame that asks for a window of 512 MiB and holds data in one raw block.
func wide(data []byte) []byte {
	n := len(data)<<3 | 1
	return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, (29 - 10) << 3, byte(n), byte(n >> 8),
		byte(n >> 16)}, data...)
}

// set spoils a layer's stored bytes, with a descriptor that describes them honestly.
func set(edit func(wire []byte) []byte) func(*testing.T, *imgbuild.Image, *imgbuild.Layer) {
	return func(t *testing.T, _ *imgbuild.Image, l *imgbuild.Layer) { l.SetWire(edit(blob(t, l))) }
}

// hostiles is all ways. Files over 1 MiB are decoded as a stream, smaller ones in memory.
func hostiles() []hostile {
	const large = 3 << 20
	both := func(name string, edit func(wire []byte) []byte) []hostile {
		return []hostile{{name: name, spoil: set(edit)},
			{name: name + "-large", size: large, spoil: set(edit)}}
	}
	list := []hostile{
		{name: "wire-digest", spoil: func(t *testing.T, _ *imgbuild.Image, l *imgbuild.Layer) {
			wire := blob(t, l)
			wire[len(wire)-1] ^= 1
			l.Wire = imgbuild.NewBlob(wire)
		}},
		{name: "wire-digest-large", size: large,
			spoil: func(t *testing.T, _ *imgbuild.Image, l *imgbuild.Layer) {
				wire := blob(t, l)
				wire[len(wire)/2] ^= 1
				l.Wire = imgbuild.NewBlob(wire)
			}},
		{name: "flipped-on-the-way", fault: faultreg.Flip(7)},
		{name: "missing", spoil: func(_ *testing.T, m *imgbuild.Image, l *imgbuild.Layer) { m.Drop(l.Logical) }},
		{name: "missing-in-registry", fault: faultreg.Answer(404, "")},
		{name: "descriptor-500-GB", quiet: true,
			spoil: func(_ *testing.T, _ *imgbuild.Image, l *imgbuild.Layer) { l.Size = 500 << 30 }},
		{name: "descriptor-500-GB-large", size: large, quiet: true,
			spoil: func(_ *testing.T, _ *imgbuild.Image, l *imgbuild.Layer) { l.Size = 500 << 30 }},
		{name: "descriptor-small",
			spoil: func(_ *testing.T, _ *imgbuild.Image, l *imgbuild.Layer) { l.Size -= 3 }},
		{name: "endless-skippable", size: large,
			fault: faultreg.Endless("application/octet-stream", skippable(1<<20)),
			spoil: func(_ *testing.T, _ *imgbuild.Image, l *imgbuild.Layer) { l.Size = 6 << 20 }},
		{name: "window-512-MiB", spoil: func(t *testing.T, m *imgbuild.Image, l *imgbuild.Layer) {
			l.SetWire(wide(content(t, m, l)))
		}},
		{name: "window-512-MiB-large", size: large, spoil: set(func([]byte) []byte { return wide(nil) })},
	}
	list = append(list, both("not-zstd",
		func([]byte) []byte { return []byte("this is not zstd, but text") })...)
	list = append(list, both("nothing", func([]byte) []byte { return nil })...)
	list = append(list, both("truncated", func(b []byte) []byte { return b[:len(b)-3] })...)
	list = append(list, both("trailing", func(b []byte) []byte { return append(b, "tail"...) })...)
	list = append(list, both("other-content",
		func([]byte) []byte { return imgbuild.Compress([]byte("something else")) })...)
	list = append(list, both("second-frame",
		func(b []byte) []byte { return append(b, imgbuild.Compress([]byte("more"))...) })...)
	list = append(list, both("skippable", func([]byte) []byte { return skippable(512 << 10) })...)
	list = append(list, both("bomb-10-GB", func([]byte) []byte { return bomb(10 << 30 >> 17) })...)
	return list
}

// content is the decoded content of a layer that is not spoiled yet.
func content(t *testing.T, m *imgbuild.Image, l *imgbuild.Layer) []byte {
	t.Helper()
	for _, p := range m.Paths() {
		if m.Digest(p) == l.Logical {
			data, err := m.Decoded(p)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
	t.Fatalf("nothing has the digest %s", l.Logical)
	return nil
}

// hostileImage is an image with a file a hostile layer, and a good sibling of each; "d" is their folder.
func hostileImage(t *testing.T, e *harness.Env, all []hostile) (img *imgbuild.Image, ref string) {
	t.Helper()
	var entries []imgbuild.Entry
	for i, h := range all {
		var c imgbuild.Content = imgbuild.Text(fmt.Sprintf("content of %s\n", h.name))
		if h.size > 0 {
			c = imgbuild.Pattern{Seed: uint64(i), Len: h.size}
		}
		entries = append(entries, imgbuild.File("d/"+h.name, "0644", c),
			imgbuild.File("d/"+h.name+".good", "0644", imgbuild.Text("good "+h.name)))
	}
	img = harness.Build(t, imgbuild.Spec{Entries: imgbuild.Sort(entries)})
	for _, h := range all {
		l := img.Layer(img.Digest("world/fs/d/" + h.name))
		if h.fault != nil {
			e.Registry().On(faultreg.Match{Kind: faultreg.Blob, Ref: l.Digest}, h.fault)
		}
		if h.spoil != nil {
			h.spoil(t, img, l)
		}
	}
	return img, e.Serve(img)
}

// TestHostileLayers: an image with hostile layers mounts; a file with such a layer is EIO, with a log line
// that names image, path and digest, and all others read. verify lists every bad one.
func TestHostileLayers(t *testing.T) {
	t.Parallel()
	harness.Once(t, func(t *testing.T, e *harness.Env) {
		all := hostiles()
		img, ref := hostileImage(t, e, all)
		e.Prefix = harness.MemoryLimit(t, megabytes(200))
		m := e.Mount(ref, "--prefetch=none")
		e.Registry().Reset()
		for _, h := range all {
			path := "world/fs/d/" + h.name
			if data, err := m.ReadErr(path); !errors.Is(err, syscall.EIO) || len(data) > 0 {
				t.Errorf("%s: read %d bytes, %v; want EIO", h.name, len(data), err)
			}
			if got := string(m.Read(path + ".good")); got != "good "+h.name {
				t.Errorf("the sibling of %s reads %q", h.name, got)
			}
			logged(t, e, ref, path, img.Digest(path))
		}
		checkRequests(t, e, img, all)
		if got := harness.Peak(t, m.PID); got > megabytes(200) {
			t.Errorf("the daemon took %d MB", got>>20)
		}
		m.Unmount()
		r := refused(t, e, 4, nil, "verify", ref)
		for _, h := range all {
			if d := img.Digest("world/fs/d/" + h.name); !strings.Contains(r.Stdout, "bad "+d) {
				t.Errorf("verify does not list %s (%s): %v", h.name, d, r)
			}
		}
		if n := strings.Count(r.Stdout, "bad sha256:"); n != len(all) {
			t.Errorf("verify lists %d blobs, %d are bad: %v", n, len(all), r)
		}
	})
}

// logged fails the test unless one log line names image, path and digest of a failed read.
func logged(t *testing.T, e *harness.Env, ref, path, digest string) {
	t.Helper()
	logs := e.Sh(`cat "$1"/pfmount/*`, e.Path("state")).Stdout
	for line := range strings.SplitSeq(logs, "\n") {
		if strings.Contains(line, "failed") && strings.Contains(line, ref) &&
			strings.Contains(line, "path="+path+" ") && strings.Contains(line, digest) {
			return
		}
	}
	t.Errorf("no log line names %s, %s and %s", ref, path, digest)
}

// checkRequests: layers that are refused by their descriptor are not fetched, no body is read far past the
// size of its descriptor, and none more than twice.
func checkRequests(t *testing.T, e *harness.Env, img *imgbuild.Image, all []hostile) {
	t.Helper()
	for _, h := range all {
		d := img.Digest("world/fs/d/" + h.name)
		for _, l := range img.Layers {
			if l.Logical != d {
				continue
			}
			n, sent := 0, int64(0)
			for _, x := range e.Registry().Log() {
				if x.Ref == l.Digest && x.Kind == faultreg.Blob {
					n, sent = n+1, sent+x.Bytes
				}
			}
			// What is on its way when a client has enough: the sockets' buffers.
			if h.quiet && n > 0 || n > 2 || sent > 2*l.Size+32<<20 {
				t.Errorf("%s: %d requests, %d bytes for a layer of %d", h.name, n, sent, l.Size)
			}
		}
	}
}

// TestHostileCat: cat of each bad file is exit 4 and prints nothing of it; of its siblings, the content.
func TestHostileCat(t *testing.T) {
	t.Parallel()
	e, all := harness.New(t, ""), hostiles()
	img, ref := hostileImage(t, e, all)
	e.Prefix = harness.MemoryLimit(t, megabytes(200))
	for _, h := range all {
		path := "world/fs/d/" + h.name
		r := refused(t, e, 4, []string{img.Digest(path), h.name}, "cat", ref, path)
		if r.Stdout != "" {
			t.Errorf("%s: cat printed %d bytes", h.name, len(r.Stdout))
		}
	}
	if r := e.Run("cat", ref, "world/fs/d/missing.good").Want(t, 0); r.Stdout != "good missing" {
		t.Errorf("a good file: %v", r)
	}
}

// TestHostileTops: the same for blobs without a signed size, where --max-blob-size is the bound. world.fs
// is needed to mount; the others are EIO.
func TestHostileTops(t *testing.T) {
	t.Parallel()
	huge := func(l *imgbuild.Layer) { l.Size = 500 << 30 }
	tests := []struct {
		name  string
		spoil func(l *imgbuild.Layer)
		fault faultreg.Fault
	}{
		{"bomb of 10 GB", func(l *imgbuild.Layer) { l.SetWire(bomb(10 << 30 >> 17)) }, nil},
		{"500 GB of skippable frames", huge, faultreg.Endless("application/octet-stream", skippable(1<<20))},
		{"window of 512 MiB", func(l *imgbuild.Layer) { l.SetWire(wide([]byte("{}"))) }, nil},
		{"missing", nil, faultreg.Answer(404, "")},
		{"not zstd", func(l *imgbuild.Layer) { l.SetWire([]byte("text")) }, nil},
	}
	for _, tt := range tests {
		for _, field := range []string{"world.fs", "cache.manifest", "model.diff", "trace.messages"} {
			t.Run(tt.name+"/"+field, func(t *testing.T) {
				t.Parallel()
				e := harness.New(t, "")
				img := harness.Build(t, imgbuild.Spec{Entries: []imgbuild.Entry{plainFile("a")}})
				digest := img.Digest(field)
				l := img.Layer(digest)
				if tt.spoil != nil {
					tt.spoil(l)
				}
				if tt.fault != nil {
					e.Registry().On(faultreg.Match{Kind: faultreg.Blob, Ref: l.Digest}, tt.fault)
				}
				ref := e.Serve(img)
				e.Prefix = harness.MemoryLimit(t, megabytes(200))
				limit := "--max-blob-size=64MiB"
				if field == "world.fs" || field == "cache.manifest" {
					refused(t, e, 4, []string{field, digest}, limit, ref, e.MountDir())
					return
				}
				m := e.Mount(ref, limit)
				path := imgbuild.TopPaths[field]
				if _, err := m.ReadErr(path); !errors.Is(err, syscall.EIO) {
					t.Errorf("%s: %v, want EIO", path, err)
				}
				logged(t, e, ref, path, digest)
				if got := string(m.Read("world/fs/a")); got != "evil" {
					t.Errorf("the sibling reads %q", got)
				}
				m.Unmount()
				r := refused(t, e, 4, nil, "verify", limit, ref)
				if !strings.Contains(r.Stdout, "bad "+digest) {
					t.Errorf("verify does not list %s: %v", digest, r)
				}
			})
		}
	}
}
