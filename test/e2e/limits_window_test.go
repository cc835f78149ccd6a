package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestLargestWindows: blobs as `zstd --ultra --long=27` writes them, each with a window of 128 MiB,
// are read at once through a daemon that may have 300 MB: one window at a time.
func TestLargestWindows(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "") // cgroups need root
	const files = 4
	z, err := zstd.NewWriter(nil, zstd.WithWindowSize(128<<20), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var spec imgbuild.Spec
	content := func(i int) imgbuild.Pattern { return imgbuild.Pattern{Seed: uint64(i), Len: 140 << 20} }
	for i := range files {
		spec.Entries = append(spec.Entries, imgbuild.File(fmt.Sprint(i), "0644", content(i)))
	}
	img := harness.Build(t, spec)
	for i := range files {
		var wire bytes.Buffer
		z.Reset(&wire)
		if _, err := content(i).WriteTo(z); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		img.Layer(img.Digest(fmt.Sprint("world/fs/", i))).SetWire(wire.Bytes())
	}
	m := limited(t, e, e.Serve(img), 300<<20)
	var readers []*harness.Process
	for i := range files {
		readers = append(readers, e.Command("sha256sum", m.Path(fmt.Sprint("world/fs/", i))))
	}
	for i, p := range readers {
		if r := p.Wait(harness.Limit).Want(t, 0); !strings.HasPrefix("sha256:"+r.Stdout,
			img.Digest(fmt.Sprint("world/fs/", i))) {
			t.Errorf("file %d: wrong content: %v", i, r)
		}
	}
	peak := harness.Peak(t, m.PID)
	t.Logf("peak memory %d MB", peak>>20)
	if peak > 250<<20 {
		t.Errorf("peak of %d bytes under a limit of 300 MiB", peak)
	}
	m.Unmount()
}
