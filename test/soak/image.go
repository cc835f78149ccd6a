package soak

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/pfmount/pfmount/test/harness"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// picture is an image in the registry and the truth about it on disk.
type picture struct {
	img   *imgbuild.Image
	tag   string
	files []string // paths in a mount
	dir   string   // holds the decoded bytes under those paths, and names
	names string   // what world/fs must show, as JSON
}

// repository is where the images are in the registry.
const repository = "team/app"

// newPicture builds an image, pushes it and writes its truth. Images of one seed whose fork differs
// share most blobs.
func newPicture(s *stage, tag string, seed uint64, fork int) *picture {
	s.t.Helper()
	spec := imgbuild.Spec{Entries: entries(seed, fork),
		Top: map[string][]byte{"trace.messages": fmt.Appendf(nil, "{\"fork\":%d}\n", fork)}}
	for i := range 4 {
		spec.Pages = append(spec.Pages, imgbuild.Page{
			K: imgbuild.Noise{Seed: seed + 500 + uint64(i), Len: 64 << 10},
			V: imgbuild.Noise{Seed: seed + 600 + uint64(i), Len: 96 << 10},
		})
	}
	p := &picture{img: harness.Build(s.t, spec), tag: tag, dir: s.env.Path("truth/" + tag)}
	if err := s.registry.Push(s.t.Context(), p.img, repository, tag); err != nil {
		s.t.Fatal(err)
	}
	want, err := spec.Want()
	if err != nil {
		s.t.Fatal(err)
	}
	symlinks := map[string]bool{}
	for _, w := range want {
		symlinks["world/fs/"+w.Path] = w.Kind == "symlink"
	}
	for _, path := range p.img.Paths() {
		if !symlinks[path] {
			p.keep(s, path)
		}
	}
	p.names = filepath.Join(p.dir, "names.json")
	raw, err := json.Marshal(want)
	if err == nil {
		err = os.WriteFile(p.names, raw, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// keep writes the decoded bytes behind a path.
func (p *picture) keep(s *stage, path string) {
	s.t.Helper()
	data, err := p.img.Decoded(path)
	if err == nil && "sha256:"+harness.SHA256(data) != p.img.Digest(path) {
		err = fmt.Errorf("%s: the image is not what its digests say", path)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(p.truth(path)), 0o700)
	}
	if err == nil {
		err = os.WriteFile(p.truth(path), data, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	p.files = append(p.files, path)
}

func (p *picture) truth(path string) string { return filepath.Join(p.dir, path) }

// hex is the name of the blob behind a path.
func (p *picture) hex(path string) string { return strings.TrimPrefix(p.img.Digest(path), "sha256:") }

// bigFile is the file of more than 8 MiB, which the cache checks by chunks.
const bigFile = "world/fs/big/chunked"

// entries are about 35 MB in 160 files: many small ones, some of a few hundred KiB, a few of MiBs,
// one of 9 MiB.
func entries(seed uint64, fork int) []imgbuild.Entry {
	rng := rand.New(rand.NewPCG(seed, 77))
	var list []imgbuild.Entry
	add := func(path string, n int64, packs bool) {
		var c imgbuild.Content = imgbuild.Noise{Seed: rng.Uint64(), Len: n}
		if packs {
			c = imgbuild.Pattern{Seed: rng.Uint64(), Len: n}
		}
		list = append(list, imgbuild.File(path, "0644", c))
	}
	for i := range 110 {
		add(fmt.Sprintf("src/d%d/f%03d", i%7, i), rng.Int64N(9000), i%3 == 0)
	}
	for i := range 36 {
		add(fmt.Sprintf("lib/l%02d", i), 60<<10+rng.Int64N(400<<10), i%4 == 0)
	}
	for i := range 6 {
		add(fmt.Sprintf("big/b%d", i), 1<<20+rng.Int64N(3<<20), i == 0)
	}
	add("big/chunked", 9<<20+12345, false)
	for i := range 12 { // what forks do not share
		c := imgbuild.Noise{Seed: seed + uint64(1000*fork+i), Len: int64(i) * 20000}
		list = append(list, imgbuild.File(fmt.Sprintf("own/o%02d", i), "0755", c))
	}
	return imgbuild.Sort(append(list, imgbuild.Symlink("latest", "src/d0/f000")))
}
