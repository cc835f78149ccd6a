package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/pfmount/pfmount/test/faultreg"
	"github.com/pfmount/pfmount/test/imgbuild"
)

// maxPushed is the largest manifest that distribution takes; a larger one is served ready-made.
const maxPushed = 4 << 20

// shape is the tree that is measured: src/dNNNN/fNNNN.txt of 1 to 7 KiB, and big.bin.
type shape struct {
	folders, files int
	big            int64
}

// entries are the tree in the order of the image.
func (s shape) entries() iter.Seq[imgbuild.Entry] {
	return func(yield func(imgbuild.Entry) bool) {
		if !yield(imgbuild.File("big.bin", "0644", prose{seed: 1 << 40, size: s.big})) || !yield(imgbuild.Dir("src", "0755")) {
			return
		}
		for e := range imgbuild.Folders(s.folders, s.files, func(n int) imgbuild.Content {
			return prose{seed: uint64(n + 1), size: 1024 + int64(n)*2654435761%6144}
		}) {
			e.Path = "src/" + e.Path
			if !yield(e) {
				return
			}
		}
	}
}

// write lays the tree out below dir.
func (s shape) write(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for e := range s.entries() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		path := filepath.Join(dir, e.Path)
		if e.Kind == "dir" {
			if err := os.Mkdir(path, 0o755); err != nil {
				return err
			}
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = e.Content.WriteTo(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// session is the tree in all its forms, and what was measured on it.
type session struct {
	*place
	opts    options
	srv     *faultreg.Server
	ref     string
	img     *imgbuild.Image
	plain   string         // the folder of the plain tree
	squash  string         // the squashfs image; "" without squashfuse
	caches  map[string]int // how many caches of a name there were
	results results
	notes   []string // lines for below a table
}

func newSession(ctx context.Context, p *place, o options) (_ *session, err error) {
	s := &session{place: p, opts: o, plain: p.path("plain"), caches: map[string]int{}, results: results{}}
	if err := o.shape.write(ctx, s.plain); err != nil {
		return nil, err
	}
	s.img, err = imgbuild.Build(imgbuild.Spec{Seq: o.shape.entries(), Dir: p.dir})
	if err != nil {
		return nil, err
	}
	s.srv, err = faultreg.New(faultreg.Options{})
	if err != nil {
		return nil, err
	}
	s.ref = s.srv.Ref("bench/session", "v1")
	if len(s.img.OCIManifest()) > maxPushed {
		s.srv.Serve(s.img, "bench/session", "v1")
	} else if err := s.srv.Push(ctx, s.img, "bench/session", "v1"); err != nil {
		s.srv.Close()
		return nil, err
	}
	if squashfuse() != "" {
		s.squash = p.path("tree.squashfs")
		if _, err := p.run(ctx, "", "mksquashfs", s.plain, s.squash, "-comp", "zstd", "-Xcompression-level", "3", "-no-progress", "-quiet"); err != nil {
			s.srv.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *session) describe(out io.Writer) {
	var wire, small int64
	for _, l := range s.img.Layers {
		wire += l.Size
	}
	for e := range s.opts.shape.entries() {
		if e.Content != nil {
			small += e.Content.Size()
		}
	}
	small -= s.opts.shape.big
	served := "pushed into distribution's registry in memory"
	if n := len(s.img.OCIManifest()); n > maxPushed {
		served = "served from a ready manifest, which is larger than distribution takes"
	}
	fmt.Fprintf(out, "tree     %d folders with %d files each (%s) and one file of %s; %d layers, %s on the wire, manifest %s, %s\n",
		s.opts.shape.folders, s.opts.shape.files, size(small), size(s.opts.shape.big), len(s.img.Layers), size(wire), size(int64(len(s.img.OCIManifest()))), served)
}

// prose is text of random words: it compresses about as source code does, and costs no memory.
type prose struct {
	seed uint64
	size int64
}

var words = strings.Fields(`the session holds a working tree with every file as the agent left it and names each by digest
func return if err != nil { } := range for package import struct string int64 []byte error const var type map[string]any
0x1f 4096 65536 3.14159 true false io.Reader ctx context.Context fmt.Errorf("%s: %w", name, err) // measure, then change
export class Index extends Component<Props> async await Promise.all([ ]) => null undefined this.state console.log('mounted')
def __init__(self, path: str) -> None: yield from lambda x: x.encode("utf-8") raise ValueError(f"bad {path}")`)

// Size is the length in bytes.
func (p prose) Size() int64 { return p.size }

// WriteTo writes all of it, the same at each call.
func (p prose) WriteTo(w io.Writer) (int64, error) {
	b := bufio.NewWriterSize(w, int(min(p.size+1, 256<<10)))
	x := p.seed*2685821657736338717 + 88172645463325252
	for done := int64(0); done < p.size; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		for r, i := x, 0; i < 6 && done < p.size; i++ {
			word := words[r%uint64(len(words))]
			r /= uint64(len(words))
			word = word[:min(int64(len(word)), p.size-done)]
			b.WriteString(word) // Flush gives the error
			done += int64(len(word))
			if done < p.size {
				end := byte(' ')
				if i == 5 {
					end = '\n'
				}
				b.WriteByte(end)
				done++
			}
		}
	}
	return p.size, b.Flush()
}
