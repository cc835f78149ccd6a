package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// TestManyLayers: images of 1,000, 10,000 and 40,000 layers mount and read, in bounded memory. The
// registry takes manifests up to 4 MiB only, so the largest is served as it stands.
func TestManyLayers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		files int
		push  bool
	}{{1_000, true}, {10_000, false}, {40_000, false}}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.files), func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			img := harness.Build(t, imgbuild.Spec{Seq: imgbuild.Folders(tt.files/100, 100,
				imgbuild.Numbered(tt.files))})
			ref := ""
			if tt.push {
				ref = e.Push(img)
			} else {
				ref = e.Serve(img)
			}
			m := e.Mount(ref)
			if n := len(m.Tree("world/fs", false)); n != tt.files+tt.files/100 {
				t.Errorf("%d names, want %d", n, tt.files+tt.files/100)
			}
			for _, n := range []int{0, tt.files / 2, tt.files - 1} {
				path := fmt.Sprintf("world/fs/d%04d/f%04d.txt", n/100, n%100)
				if got, want := string(m.Read(path)), fmt.Sprintf("this is file number %d\n",
					n); got != want {
					t.Errorf("%s: %q, want %q", path, got, want)
				}
			}
			if got := harness.Peak(t, m.PID); got > megabytes(200) {
				t.Errorf("the daemon took %d MB", got>>20)
			}
			r := e.Run("inspect", "--json", ref).Want(t, 0)
			var out struct{ Layers int }
			if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil || out.Layers != len(img.Layers) {
				t.Errorf("inspect says %d layers, want %d (%v)", out.Layers, len(img.Layers), err)
			}
		})
	}
}

// TestEndlessManifest: a manifest body without an end, or said to have 20 GB, stops at the limit.
func TestEndlessManifest(t *testing.T) {
	t.Parallel()
	const oci = "application/vnd.oci.image.manifest.v1+json"
	space := bytes.Repeat([]byte(" "), 1<<20)
	layers := []byte(strings.Repeat(`{"mediaType":"text/plain","size":1,"digest":"sha256:`+strings.Repeat("ab", 32)+`"},`, 1<<13))
	tests := []struct {
		name  string
		fault faultreg.Fault
		says  string
	}{
		{"endless white space", faultreg.Endless(oci, space), "67108864"},
		{"endless layers", faultreg.Endless(oci, layers), "67108864"},
		{"20 GB", faultreg.Chain(faultreg.Length(20<<30), faultreg.Endless(oci, space)), "67108864"},
		{"20 GB, with a digest", faultreg.Chain(faultreg.With("Content-Length", fmt.Sprint(20<<30),
			"Docker-Content-Digest", "sha256:"+strings.Repeat("ab", 32)),
			faultreg.Endless(oci, space)), "67108864"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t, "")
			srv := e.Registry()
			srv.On(faultreg.Match{Kind: faultreg.Manifest}, tt.fault)
			e.Prefix = harness.MemoryLimit(t, megabytes(200))
			refused(t, e, 4, []string{"manifest", tt.says}, srv.Ref("team/app", "v1"), e.MountDir())
			var sent int64
			for _, x := range srv.Log() {
				sent += x.Bytes
			}
			if most := int64(2*(64<<20) + 32<<20); sent > most {
				t.Errorf("%d bytes were read, want no more than %d", sent, most)
			}
		})
	}
}

// TestBareManifest: layers without annotations are found by their content; what has no layer at all
// is missing, and no crash.
func TestBareManifest(t *testing.T) {
	t.Parallel()
	e := harness.New(t, "")
	entries := []imgbuild.Entry{plainFile("a"), imgbuild.File("b", "0644", imgbuild.Text("b"))}
	img := harness.Build(t, imgbuild.Spec{Entries: entries})
	for i := range img.Layers {
		img.Layers[i].Path = ""
	}
	m := e.Mount(e.Serve(img))
	m.Compare("world/fs", wanted(t, entries))
	m.Unmount()
	img.Layers = img.Layers[:1]
	bare := harness.New(t, "") // whose cache has none of it
	refused(t, bare, 4, []string{"world.fs", "missing"}, bare.Serve(img), bare.MountDir())
}
